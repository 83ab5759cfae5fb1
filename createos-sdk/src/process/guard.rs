//! Managed processes that do not outlive their use.

use super::Process;
use crate::client::Client;
use crate::guard::{self, Ends, Guard};
use crate::pending::Pending;

impl Ends for Process {
    fn client(&self) -> &Client {
        self.sandbox().client()
    }

    fn with_client(&self, client: Client) -> Self {
        let process = Self::new(self.sandbox().with_client(client), self.id().clone());
        if let Some(view) = self.view() {
            process.saw(view);
        }
        process
    }

    fn end(&self) -> Pending<()> {
        let process = self.clone();
        Pending::new(async move { guard::or_gone(process.terminate().await.map(drop)) })
    }
}

impl Process {
    /// Terminates this process, and everything it started, when the guard is dropped. See
    /// [`Guard`].
    pub fn guard(&self) -> Guard<Self> {
        Guard::new(self.clone())
    }
}
