//! Dockerfiles: the rules of api.md 6.8, and what a build has to do.
//!
//! Everything that can be known without running anything is settled here: variables are
//! replaced, directories and users noted. What is left is a list of commands.

mod lines;
mod words;

use std::fmt;

use self::lines::Instruction;
use self::words::Variables;
use super::validate::shown;
use crate::runtime::{ImageConfig, PATH};

/// The longest Dockerfile.
pub(crate) const LONGEST: usize = 64 << 10;
/// What all variables together may have, in bytes.
const MOST_VARIABLES: usize = 64 << 10;
const LONGEST_PATH: usize = 4095;
/// The only images that may stand in `FROM`.
const BASES: [(&str, Family); 2] =
    [("nodeops/sandbox:debian", Family::Debian), ("nodeops/sandbox:alpine", Family::Alpine)];

/// What kind of system a template is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Debian,
    Alpine,
}

impl Family {
    /// The name in `FROM`.
    pub(crate) fn base(self) -> &'static str {
        match self {
            Self::Debian => BASES[0].0,
            Self::Alpine => BASES[1].0,
        }
    }
}

/// What is wrong with a Dockerfile, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    line: usize,
    what: String,
}

impl Fault {
    fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// A Dockerfile that keeps the rules.
#[derive(Debug, Clone)]
pub(crate) struct Dockerfile {
    pub(crate) family: Family,
    instructions: Vec<Instruction>,
    escape: char,
}

/// What a build does, in order, and what sandboxes get from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) config: ImageConfig,
}

/// One instruction of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// As it is written.
    pub(crate) text: String,
    pub(crate) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Runs a command with this configuration.
    Run { argv: Vec<String>, config: ImageConfig },
    /// Makes directories that are missing.
    MakeDirectories(Vec<String>),
    /// Changes what comes later, or sandboxes.
    Noted,
    /// Has no meaning for a sandbox; the text says why.
    Ignored(&'static str),
}

const NO_MAIN: &str = "kept for reference: a sandbox starts no program by itself";
const NO_EFFECT: &str = "kept for reference: it means nothing to a sandbox";

impl Dockerfile {
    /// Reads a Dockerfile and checks all that does not depend on its base.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let (instructions, escape) = lines::split(text)?;
        let from = instructions.iter().position(|it| it.keyword == "FROM");
        let Some(from) = from else {
            return Err(Fault::new(1, format!("there is no FROM; begin with {}", bases())));
        };
        for early in &instructions[..from] {
            if early.keyword != "ARG" {
                let what = format!("{} stands before FROM, where only ARG may", early.keyword);
                return Err(Fault::new(early.line, what));
            }
        }
        let family = family_of(&instructions[from])?;
        for later in &instructions[from + 1..] {
            check_allowed(later)?;
        }
        let dockerfile = Self { family, instructions, escape };
        dockerfile.plan(&ImageConfig::default())?;
        Ok(dockerfile)
    }

    /// What a build on a base with this configuration does.
    pub(crate) fn plan(&self, base: &ImageConfig) -> Result<Plan, Fault> {
        let mut planner = Planner::new(base.clone(), self.escape);
        let mut steps = Vec::new();
        for instruction in &self.instructions {
            let action = planner
                .take(instruction)
                .map_err(|what| Fault::new(instruction.line, prefixed(instruction, &what)))?;
            if planner.in_stage {
                let text = format!("{} {}", instruction.keyword, instruction.arguments);
                steps.push(Step { text: text.trim_end().to_owned(), action });
            }
        }
        Ok(Plan { steps, config: planner.config })
    }
}

fn bases() -> String {
    let names = BASES.map(|(name, _)| format!("FROM {name}"));
    names.join(" or ")
}

fn prefixed(instruction: &Instruction, what: &str) -> String {
    format!("{}: {what}", instruction.keyword)
}

fn family_of(from: &Instruction) -> Result<Family, Fault> {
    let fault = |what: String| Err(Fault::new(from.line, what));
    let mut words = from.arguments.split_whitespace();
    let image = words.next().unwrap_or_default();
    if image.contains('$') {
        return fault("FROM must name its image literally, without variables".to_owned());
    }
    if image.starts_with("--") {
        return fault(format!("FROM takes no option here: {}", shown(image)));
    }
    match (words.next(), words.next(), words.next()) {
        (None, ..) => {}
        (Some(as_), Some(_), None) if as_.eq_ignore_ascii_case("as") => {}
        _ => return fault("FROM takes an image, and perhaps AS and a name".to_owned()),
    }
    let known = BASES.iter().find(|(name, _)| *name == image);
    known.map(|(_, family)| *family).ok_or_else(|| {
        let image = shown(image);
        Fault::new(from.line, format!("the image {image:?} is not allowed; use {}", bases()))
    })
}

fn check_allowed(instruction: &Instruction) -> Result<(), Fault> {
    let why = match instruction.keyword.as_str() {
        "FROM" => "there may be one FROM only: builds have a single stage",
        "COPY" | "ADD" => "there is no build context to copy from; fetch files in a RUN",
        "ARG" | "CMD" | "ENTRYPOINT" | "ENV" | "EXPOSE" | "HEALTHCHECK" | "LABEL"
        | "MAINTAINER" | "ONBUILD" | "RUN" | "SHELL" | "STOPSIGNAL" | "USER" | "VOLUME"
        | "WORKDIR" => return Ok(()),
        other => {
            let what = format!(
                "there is no instruction {:?} (a heredoc is not supported: continue lines \
                 with a backslash)",
                shown(other)
            );
            return Err(Fault::new(instruction.line, what));
        }
    };
    Err(Fault::new(instruction.line, prefixed(instruction, why)))
}

/// The state of a build as it is known without running it.
struct Planner {
    escape: char,
    in_stage: bool,
    config: ImageConfig,
    /// `ARG`s before `FROM`.
    global: Variables,
    arguments: Variables,
    shell: Vec<String>,
}

impl Planner {
    fn new(mut config: ImageConfig, escape: char) -> Self {
        config.env.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
        let shell = ["/bin/sh", "-c"].map(str::to_owned).into();
        let (global, arguments) = Default::default();
        Self { escape, in_stage: false, config, global, arguments, shell }
    }

    /// Variables that an instruction may use: those of ENV win over arguments.
    fn variables(&self) -> Variables {
        let mut variables = self.arguments.clone();
        variables.extend(self.config.env.clone());
        variables
    }

    fn expand(&self, text: &str) -> Result<String, String> {
        words::expand(text, &self.variables(), self.escape)
    }

    fn take(&mut self, instruction: &Instruction) -> Result<Action, String> {
        let arguments = instruction.arguments.as_str();
        if arguments.is_empty() {
            return Err("needs at least one argument".to_owned());
        }
        match instruction.keyword.as_str() {
            "FROM" => {
                self.in_stage = true;
                self.arguments.clear();
                return Ok(Action::Noted);
            }
            "ARG" => self.arg(arguments)?,
            "ENV" => self.env(arguments)?,
            "LABEL" => drop(self.pairs(arguments)?),
            "RUN" => return self.run(arguments),
            "WORKDIR" => return self.workdir(arguments),
            "USER" => self.user(arguments)?,
            "SHELL" => self.shell(arguments)?,
            "VOLUME" => return self.volume(arguments),
            "CMD" | "ENTRYPOINT" => return Ok(Action::Ignored(NO_MAIN)),
            "EXPOSE" => {
                for port in words::split(arguments, self.escape) {
                    check_port(&self.expand(&port)?)?;
                }
                return Ok(Action::Ignored("every port can be reached, by ingress and tunnels"));
            }
            "STOPSIGNAL" => {
                self.expand(arguments)?;
                return Ok(Action::Ignored(NO_EFFECT));
            }
            _ => return Ok(Action::Ignored(NO_EFFECT)),
        }
        Ok(Action::Noted)
    }

    fn arg(&mut self, arguments: &str) -> Result<(), String> {
        for word in words::split(arguments, self.escape) {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(self.expand(value)?)),
                None => (word.as_str(), None),
            };
            check_name(name)?;
            // Named without a value, it has the one it was given before FROM, if any.
            let value = value.or_else(|| self.global.get(name).cloned());
            if let Some(value) = value {
                self.arguments.insert(name.to_owned(), value);
            }
        }
        if !self.in_stage {
            self.global.clone_from(&self.arguments);
        }
        check_size(&self.arguments)
    }

    fn env(&mut self, arguments: &str) -> Result<(), String> {
        for (name, value) in self.pairs(arguments)? {
            check_name(&name)?;
            if value.contains('\0') {
                return Err(format!("the value of {name} contains a NUL character"));
            }
            self.config.env.insert(name, value);
        }
        check_size(&self.config.env)
    }

    /// `a=1 b="x y"`, or the old form `a the rest`. All see the variables as they were before.
    fn pairs(&self, arguments: &str) -> Result<Vec<(String, String)>, String> {
        let words = words::split(arguments, self.escape);
        let first = words.first().map(String::as_str).unwrap_or_default();
        if !first.contains('=') {
            let (name, value) = arguments
                .split_once(char::is_whitespace)
                .ok_or_else(|| format!("{:?} has no value; write name=value", shown(first)))?;
            return Ok(vec![(self.expand(name)?, self.expand(value.trim_start())?)]);
        }
        let pair = |word: &String| {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| format!("{:?} has no `=`; write name=value", shown(word)))?;
            Ok((self.expand(name)?, self.expand(value)?))
        };
        words.iter().map(pair).collect()
    }

    fn run(&self, arguments: &str) -> Result<Action, String> {
        if arguments.starts_with("--") {
            let option = arguments.split_whitespace().next().unwrap_or_default();
            return Err(format!("the option {} is not supported", shown(option)));
        }
        let argv = match json(arguments) {
            Some(argv) if argv.first().is_some_and(|program| !program.is_empty()) => argv,
            Some(_) => return Err("names no program".to_owned()),
            None => {
                if let Some(heredoc) = arguments.split_whitespace().find(|word| is_heredoc(word)) {
                    return Err(format!(
                        "heredocs ({}) are not supported; continue lines with a backslash",
                        shown(heredoc)
                    ));
                }
                self.shell.iter().cloned().chain([arguments.to_owned()]).collect()
            }
        };
        let config = ImageConfig { env: self.variables(), ..self.config.clone() };
        Ok(Action::Run { argv, config })
    }

    fn workdir(&mut self, arguments: &str) -> Result<Action, String> {
        let wanted = self.expand(arguments)?;
        let path = self.absolute(&wanted)?;
        self.config.directory = Some(path.clone());
        Ok(Action::MakeDirectories(vec![path]))
    }

    fn volume(&self, arguments: &str) -> Result<Action, String> {
        let paths = json(arguments).unwrap_or_else(|| words::split(arguments, self.escape));
        let paths = paths.iter().map(|path| self.absolute(&self.expand(path)?));
        paths.collect::<Result<_, String>>().map(Action::MakeDirectories)
    }

    /// A path below the working directory, without `.` and `..`.
    fn absolute(&self, path: &str) -> Result<String, String> {
        if path.is_empty() {
            return Err("the path is empty".to_owned());
        }
        let base = if path.starts_with('/') { None } else { self.config.directory.as_deref() };
        let mut parts: Vec<&str> = Vec::new();
        for part in base.unwrap_or_default().split('/').chain(path.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let whole = format!("/{}", parts.join("/"));
        if whole.len() > LONGEST_PATH || whole.contains('\0') {
            return Err(format!("{} is no path", shown(&whole)));
        }
        Ok(whole)
    }

    fn user(&mut self, arguments: &str) -> Result<(), String> {
        let user = self.expand(arguments)?;
        if user.is_empty() || user.len() > 256 || user.contains(char::is_whitespace) {
            return Err(format!("{:?} is no user; write `user` or `user:group`", shown(&user)));
        }
        let is_root = matches!(user.as_str(), "root" | "0" | "root:root" | "0:0");
        self.config.user = (!is_root).then_some(user);
        Ok(())
    }

    fn shell(&mut self, arguments: &str) -> Result<(), String> {
        let shell = json(arguments).filter(|shell| !shell.is_empty());
        self.shell = shell.ok_or(r#"must be a list such as ["/bin/bash", "-c"]"#)?;
        Ok(())
    }
}

fn json(arguments: &str) -> Option<Vec<String>> {
    let list = arguments.trim();
    list.starts_with('[').then(|| serde_json::from_str(list).ok()).flatten()
}

/// `<<EOF`, `3<<-"EOF"`; but no shift and no `<<<`.
fn is_heredoc(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(name) = word.strip_prefix("<<") else { return false };
    let name = name.strip_prefix('-').unwrap_or(name).trim_start_matches(['"', '\'']);
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) || name.contains(char::is_whitespace) {
        return Err(format!("{:?} is no name of a variable", shown(name)));
    }
    Ok(())
}

fn check_size(variables: &Variables) -> Result<(), String> {
    let size: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MOST_VARIABLES {
        return Err(format!("all variables together have more than {} KiB", MOST_VARIABLES >> 10));
    }
    Ok(())
}

fn check_port(word: &str) -> Result<(), String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    let fits = match ports.split_once('-') {
        Some((first, last)) => is_port(first) && is_port(last),
        None => is_port(ports),
    };
    let known = ["tcp", "udp", "sctp"].iter().any(|it| protocol.eq_ignore_ascii_case(it));
    if fits && known { Ok(()) } else { Err(format!("{:?} is no port", shown(word))) }
}

#[cfg(test)]
mod tests;
