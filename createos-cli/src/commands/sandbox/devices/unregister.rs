//! `createos sandbox devices unregister`.

use createos_sdk::ErrorKind;
use serde_json::json;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;
use crate::store::device::Store;

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    let store = Store::open(&ctx.paths)?;
    let Some(identity) = store.load()? else {
        return Err(Failure::local("this machine is not registered as a device")
            .hint("register it: createos sandbox devices register"));
    };
    let deleted = match ctx.plane() {
        Ok(plane) => {
            let deleted = plane.client.device(identity.id.clone()).delete().await;
            deleted.or_else(|error| match error.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(Failure::from(error)),
            })
        }
        Err(failure) => Err(failure),
    };
    let label = format::label(Some(&identity.name), identity.id.as_str());
    if let Err(failure) = deleted {
        let why = failure.message();
        ctx.out.warn(&format!(
            "the control plane may still know {label} ({why}); remove it there: \
             createos sandbox devices remove {}",
            identity.id
        ));
    }
    store.clear()?;
    let document =
        json!({"action": "device_unregistered", "id": identity.id, "name": identity.name});
    ctx.out.result(&document, || format!("{label} is no device any more"))?;
    Ok(Exit::Success)
}
