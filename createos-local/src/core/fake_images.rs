//! Templates and images of the scripted machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use createos_sdk::{SandboxId, TemplateId};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::fake::Fake;
use crate::runtime::{Image, Images, Origin, RuntimeError};

type Files = BTreeMap<String, Bytes>;

/// What sandboxes can begin with.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) templates: Mutex<BTreeMap<TemplateId, Files>>,
    pub(crate) images: Mutex<Vec<Image>>,
}

impl Images for Arc<Fake> {
    fn begin<'a>(
        &'a self,
        id: &'a SandboxId,
        origin: &'a Origin,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let files = match origin {
                Origin::Host => return Ok(()),
                Origin::Image(name) => Files::from([("/image".to_owned(), name.clone().into())]),
                Origin::Template(template) => {
                    let templates = self.images.templates.lock().unwrap();
                    let missing = || RuntimeError::NoSuchFile(template.to_string());
                    templates.get(template).ok_or_else(missing)?.clone()
                }
            };
            self.disk.lock().unwrap().insert(id.clone(), files);
            Ok(())
        }
        .boxed()
    }

    fn keep<'a>(
        &'a self,
        id: &'a SandboxId,
        template: &'a TemplateId,
    ) -> BoxFuture<'a, Result<u64, RuntimeError>> {
        async move {
            assert!(!self.alive.lock().unwrap().contains(id), "it has ended");
            let mut files = self.disk.lock().unwrap().get(id).cloned().expect("its files");
            files.insert("/template".to_owned(), template.to_string().into());
            self.images.templates.lock().unwrap().insert(template.clone(), files);
            Ok(4096)
        }
        .boxed()
    }

    fn forget<'a>(&'a self, template: &'a TemplateId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.images.templates.lock().unwrap().remove(template);
        async { Ok(()) }.boxed()
    }

    fn templates(&self) -> BoxFuture<'_, Result<Vec<TemplateId>, RuntimeError>> {
        let templates = self.images.templates.lock().unwrap().keys().cloned().collect();
        async { Ok(templates) }.boxed()
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, RuntimeError>> {
        let images = self.images.images.lock().unwrap().clone();
        async { Ok(images) }.boxed()
    }

    fn tidy(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        async { Ok(()) }.boxed()
    }
}
