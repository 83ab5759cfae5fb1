//! What sandboxes begin with: chains of templates and images, copied into new sandboxes.

use std::io;
use std::sync::Arc;

use createos_sdk::{SandboxId, TemplateId};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::storage::Begin;
use super::{Namespaces, blocking};
use crate::runtime::{Image, Images, Origin, RuntimeError};

impl Images for Namespaces {
    fn begin<'a>(
        &'a self,
        id: &'a SandboxId,
        origin: &'a Origin,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let (begin, name) = match origin {
                Origin::Host => return Ok(()),
                Origin::Image(name) => (Begin::Image(name.clone()), name.clone()),
                Origin::Template(template) => {
                    (Begin::Template(template.clone()), template.to_string())
                }
            };
            let (storage, id) = (Arc::clone(&self.storage), id.clone());
            let begun = blocking("lay out the sandbox's files", move || storage.begin(&id, &begin));
            begun.await.map_err(|error| match error {
                RuntimeError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    RuntimeError::NoSuchFile(name)
                }
                error => error,
            })
        }
        .boxed()
    }

    fn keep<'a>(
        &'a self,
        id: &'a SandboxId,
        template: &'a TemplateId,
    ) -> BoxFuture<'a, Result<u64, RuntimeError>> {
        let (storage, id, template) = (Arc::clone(&self.storage), id.clone(), template.clone());
        blocking("keep the template's files", move || storage.keep(&id, &template)).boxed()
    }

    fn forget<'a>(&'a self, template: &'a TemplateId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let (storage, template) = (Arc::clone(&self.storage), template.clone());
        blocking("remove the template's files", move || storage.forget(&template)).boxed()
    }

    fn templates(&self) -> BoxFuture<'_, Result<Vec<TemplateId>, RuntimeError>> {
        let storage = Arc::clone(&self.storage);
        blocking("list the templates", move || storage.templates()).boxed()
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, RuntimeError>> {
        let storage = Arc::clone(&self.storage);
        async move {
            let records = blocking("list the images", move || storage.shelf().list()).await?;
            let images = records.into_iter();
            Ok(images.map(|it| Image { name: it.name, config: it.config }).collect())
        }
        .boxed()
    }

    fn tidy(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        let storage = Arc::clone(&self.storage);
        blocking("remove layers of no use", move || storage.tidy()).boxed()
    }
}
