//! Who asks a registry: an account given by the caller, or one that `docker login` has kept.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

use createos_sdk::Secret;
use docker_credential::{CredentialRetrievalError as Missing, DockerCredential};

use super::ImageError;
use super::reference::Reference;

/// What helpers say where they know no account.
const UNKNOWN: &str = "credentials not found";

/// An account of a registry.
#[derive(Clone)]
pub(super) enum Account {
    Password {
        user: String,
        password: Secret,
    },
    /// What is exchanged for tokens in place of a password.
    Identity(Secret),
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account(..)")
    }
}

/// The account in Docker's configuration (`config.json` in `DOCKER_CONFIG`, or in `~/.docker`),
/// if there is one. It may be kept by another program, which is run.
pub(super) fn known(reference: &Reference) -> Result<Option<Account>, ImageError> {
    let cannot = |why: String| {
        let registry = reference.registry().to_owned();
        let why = format!("the account for it in Docker's configuration cannot be read: {why}");
        ImageError::Registry { registry, why }
    };
    let Some(path) = configuration() else { return Ok(None) };
    let file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error.to_string())),
    };
    match docker_credential::get_credential_from_reader(file, reference.account()) {
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Account::Identity(token.into()))),
        // As logout leaves it.
        Ok(DockerCredential::UsernamePassword(user, _)) if user.is_empty() => Ok(None),
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Account::Password { user, password: password.into() }))
        }
        Err(Missing::NoCredentialConfigured) => Ok(None),
        Err(Missing::HelperFailure { stdout, stderr, .. })
            if stdout.contains(UNKNOWN) || stderr.contains(UNKNOWN) =>
        {
            Ok(None)
        }
        // What it printed may be the secret.
        Err(Missing::HelperFailure { helper, .. }) => Err(cannot(format!("{helper} failed"))),
        Err(error) => Err(cannot(error.to_string())),
    }
}

fn configuration() -> Option<PathBuf> {
    let given = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = given("DOCKER_CONFIG").or_else(|| Some(given("HOME")?.join(".docker")));
    directory.map(|directory| directory.join("config.json"))
}
