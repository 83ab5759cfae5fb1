//! The shell through OpenSSH.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use createos_sdk::{Error, Sandbox, TunnelEvent, TunnelListener};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Spinner;
use crate::resolve::Found;
use crate::ssh::client::{Client, Running};
use crate::ssh::key::KeyPair;
use crate::ssh::{admit, server};
use crate::wait;

/// The port of SSH servers.
const PORT: u16 = 22;
/// The code with which ssh says that it failed itself.
const SSH_FAILED: i32 = 255;

/// What is needed to log in.
pub(super) struct Login<'a> {
    pub(super) ctx: &'a Context,
    pub(super) sandbox: Sandbox,
    pub(super) found: Found,
    pub(super) key: KeyPair,
    pub(super) user: String,
    pub(super) yes: bool,
}

/// The last connection that could not be opened.
type Trouble = Arc<Mutex<Option<Error>>>;

impl Login<'_> {
    pub(super) async fn run(&self) -> Result<Exit, Failure> {
        let client = Client::new(&self.ctx.paths, self.sandbox.id(), &self.key)?;
        let ssh = self.sandbox.ssh().user(&self.user);
        let known = async || ssh.authorized_keys().await.map_err(|error| self.found.explain(error));
        let known = wait::on_running(self.ctx, &self.sandbox, &self.found, known).await?;
        let request = admit::Request {
            found: &self.found,
            ssh: &ssh,
            user: &self.user,
            key: &self.key,
            known: &known,
            yes: self.yes,
        };
        if !request.ask_and_add(self.ctx).await? {
            return Ok(Exit::Success);
        }
        {
            let text = format!("preparing SSH in {}", self.found.label());
            let _spinner = Spinner::start(self.ctx.out.terminal(), text);
            server::start(&ssh, &self.found).await?;
        }
        match self.ctx.gateway()? {
            None => self.through_the_api(client).await,
            Some(gateway) => {
                let keys = [self.key.public.to_string()];
                let added = self.sandbox.add_ssh_pubkeys(keys).await;
                added.map_err(|error| self.found.explain(error))?;
                let running = Running::start(client.through(&gateway)?.login(&self.user))?;
                exit(self.ctx, running.ended().await?)
            }
        }
    }

    /// A port of this machine that leads to the server, for as long as ssh runs.
    async fn through_the_api(&self, client: Client) -> Result<Exit, Failure> {
        let trouble = Trouble::default();
        let listener = self.listen(trouble.clone()).await?;
        let client = client.at(listener.local_addr());
        let status = Running::start(client.login(&self.user))?.ended().await?;
        drop(listener);
        let trouble = trouble.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(SSH_FAILED), Some(error)) = (status.code(), trouble) {
            return Err(self.found.explain(error));
        }
        exit(self.ctx, status)
    }

    async fn listen(&self, trouble: Trouble) -> Result<TunnelListener, Failure> {
        let tunnel = self.sandbox.tunnel(PORT).on_event(move |event| {
            if let TunnelEvent::Failed { error, .. } = event {
                trouble.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
            }
        });
        Ok(tunnel.listen("127.0.0.1:0").await?)
    }
}

/// The code of ssh is that of the program inside, or 255.
fn exit(ctx: &Context, status: ExitStatus) -> Result<Exit, Failure> {
    match status.code().map(u8::try_from) {
        Some(Ok(0)) => Ok(Exit::Success),
        Some(Ok(code)) => Ok(Exit::Code(code)),
        _ => {
            ctx.out.warn(&format!("ssh ended: {status}; reported as 1"));
            Ok(Exit::Code(1))
        }
    }
}
