//! A real OpenID provider, and a person with a browser.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The provider on loopback; it ends with this.
pub(crate) struct Provider {
    process: Child,
    pub(crate) issuer: String,
}

impl Provider {
    /// Starts it; its access tokens live so many seconds.
    pub(crate) fn start(lifetime: u32) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = Command::new(root.join("../.ci/oidc")).output().expect("it runs");
        let said = String::from_utf8_lossy(&found.stderr);
        assert!(found.status.success(), "an OpenID provider is needed: {said}");
        let directory = String::from_utf8(found.stdout).expect("a path");
        let mut process = Command::new("node")
            .arg(root.join("tests/cli/sign_in/provider.mjs"))
            .args([directory.trim(), &lifetime.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node runs");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let issuer = lines.find_map(|line| line.ok().filter(|line| line.starts_with("http")));
        // What it says later must have somewhere to go.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, issuer: issuer.expect("its address") }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A browser that fills in forms. Its cookies are its own.
pub(crate) struct Browser {
    jar: tempfile::NamedTempFile,
}

/// Where it has come to.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) url: String,
    pub(crate) text: String,
}

impl Browser {
    pub(crate) fn new() -> Self {
        Self { jar: tempfile::NamedTempFile::new().expect("a file") }
    }

    pub(crate) fn open(&self, url: &str) -> Page {
        self.visit(url, &[])
    }

    /// Signs in and agrees to everything, until there is nothing left to agree to.
    pub(crate) fn agree(&self, url: &str) -> Page {
        let mut page = self.open(url);
        for _ in 0..10 {
            match self.submit(&page, &[("login", "somebody"), ("password", "secret")]) {
                Some(next) => page = next,
                None => return page,
            }
        }
        panic!("forms without end: {page:?}")
    }

    /// Sends the form of a page with its own hidden fields and these.
    pub(crate) fn submit(&self, page: &Page, fields: &[(&str, &str)]) -> Option<Page> {
        let form = &page.text[page.text.find("<form")?..];
        let form = &form[..form.find("</form")?];
        let target = attribute(form, "action").expect("an address").replace("&amp;", "&");
        let mut sent: Vec<String> = Vec::new();
        for input in form.split("<input").skip(1) {
            if let (Some(name), Some(value)) = (attribute(input, "name"), attribute(input, "value"))
            {
                sent.push(format!("{name}={value}"));
            }
        }
        sent.extend(fields.iter().map(|(name, value)| format!("{name}={value}")));
        Some(self.visit(&target, &sent))
    }

    fn visit(&self, url: &str, fields: &[String]) -> Page {
        let jar = self.jar.path();
        let mut curl = Command::new("curl");
        curl.args(["-sSL", "--noproxy", "*", "--max-time", "20", "-w", "\n%{url_effective}"]);
        curl.arg("-b").arg(jar).arg("-c").arg(jar);
        for field in fields {
            curl.args(["--data-urlencode", field]);
        }
        let output = curl.arg(url).output().expect("curl runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{url}: {said}");
        let text = String::from_utf8(output.stdout).expect("text");
        let (text, url) = text.rsplit_once('\n').expect("an address");
        Page { url: url.to_owned(), text: text.to_owned() }
    }
}

/// The value of an attribute of the first tag.
fn attribute<'a>(html: &'a str, name: &str) -> Option<&'a str> {
    let tag = &html[..html.find('>')?];
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    tag[start..].split('"').next()
}
