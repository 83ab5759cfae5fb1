use super::*;

const FROM: &str = "FROM nodeops/sandbox:debian\n";

fn plan(rest: &str) -> Plan {
    let dockerfile = Dockerfile::parse(&format!("{FROM}{rest}")).unwrap();
    dockerfile.plan(&ImageConfig::default()).unwrap()
}

fn fault(text: &str) -> String {
    match Dockerfile::parse(text) {
        Err(fault) => fault.to_string(),
        Ok(_) => panic!("{text:?} breaks no rule"),
    }
}

/// What the last RUN runs, with what.
fn last_run(rest: &str) -> (Vec<String>, ImageConfig) {
    let mut runs = plan(rest).steps.into_iter().filter_map(|step| match step.action {
        Action::Run { argv, config } => Some((argv, config)),
        _ => None,
    });
    runs.next_back().unwrap()
}

#[test]
fn one_from_of_the_list_written_literally() {
    for good in ["FROM nodeops/sandbox:debian", "from nodeops/sandbox:alpine as x\n"] {
        assert!(Dockerfile::parse(good).is_ok(), "{good}");
    }
    let alpine = Dockerfile::parse("FROM nodeops/sandbox:alpine").unwrap();
    assert_eq!(alpine.family.base(), "nodeops/sandbox:alpine");
    for (bad, why) in [
        ("", "line 1: there is no FROM"),
        ("RUN true", "there is no FROM"),
        ("RUN true\nFROM nodeops/sandbox:debian", "line 1: RUN stands before FROM"),
        ("FROM debian:trixie-slim", "line 1: the image \"debian:trixie-slim\" is not allowed"),
        ("FROM", "is not allowed"),
        ("FROM scratch", "is not allowed"),
        ("ARG B=nodeops/sandbox:debian\nFROM $B", "line 2: FROM must name its image literally"),
        ("FROM --platform=x nodeops/sandbox:debian", "takes no option"),
        ("FROM nodeops/sandbox:debian x", "perhaps AS"),
        (
            "FROM nodeops/sandbox:debian\nFROM nodeops/sandbox:debian",
            "line 2: FROM: there may be one",
        ),
    ] {
        let fault = fault(bad);
        assert!(fault.contains(why), "{bad:?}: {fault}");
    }
}

#[test]
fn what_is_not_allowed_is_named_with_its_line() {
    for (rest, why) in [
        ("COPY . /app", "line 2: COPY: there is no build context"),
        ("\n\nadd x y", "line 4: ADD: there is no build context"),
        ("RUN cat <<EOF\nhello\nEOF", "line 3: there is no instruction \"HELLO\""),
        ("RUN cat <<EOF", "line 2: RUN: heredocs (<<EOF)"),
        ("RUN cat >x 3<<-'EOF'", "heredocs"),
        ("RUN --mount=type=cache,target=/x true", "--mount=type=cache,target=/x is not supported"),
        ("RUN []", "names no program"),
        ("RUN", "needs at least one argument"),
        ("FOO bar", "there is no instruction \"FOO\""),
        ("ENV A", "has no value"),
        ("ENV A=1 B", "has no `=`"),
        ("ENV =1", "is no name"),
        ("ENV A='x", "a ' has no second one"),
        ("WORKDIR $NOTHING", "the path is empty"),
        ("USER a b", "is no user"),
        ("SHELL /bin/bash -c", "must be a list"),
        ("EXPOSE 0", "is no port"),
        ("EXPOSE 80/http", "is no port"),
    ] {
        let fault = fault(&format!("{FROM}{rest}"));
        assert!(fault.contains(why), "{rest:?}: {fault}");
    }
    let bomb: String = (0..40).map(|_| "ENV A=x$A$A\n").collect();
    assert!(fault(&format!("{FROM}{bomb}")).contains("64 KiB"));
}

#[test]
fn commands_take_the_shell_variables_directory_and_user() {
    let (argv, config) = last_run("RUN echo $A <<<x && echo $((1<<4))");
    assert_eq!(argv, ["/bin/sh", "-c", "echo $A <<<x && echo $((1<<4))"]);
    assert_eq!((config.user, config.directory), (None, None));
    let (argv, _) =
        last_run("SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\nRUN a \\\n  | b");
    assert_eq!(argv, ["/bin/bash", "-o", "pipefail", "-c", "a   | b"]);
    let (argv, config) = last_run(
        "ARG V=1\nENV A=$V PATH=/opt:$PATH\nWORKDIR /srv\nWORKDIR app/../web\nUSER web:log\n\
         RUN [\"env\", \"$A\"]",
    );
    assert_eq!(argv, ["env", "$A"]);
    assert_eq!(config.env["A"], "1");
    assert_eq!(config.env["V"], "1");
    assert_eq!(config.env["PATH"], format!("/opt:{PATH}"));
    assert_eq!(config.directory.as_deref(), Some("/srv/web"));
    assert_eq!(config.user.as_deref(), Some("web:log"));
}

#[test]
fn sandboxes_get_variables_but_no_arguments() {
    let plan = plan(
        "ARG V=1\nARG W\nENV A=$V$W B=$A\nENV OLD the rest\nUSER 0\nWORKDIR sub\nLABEL a=b c=d\n\
         MAINTAINER me\nCMD [\"x\"]\nENTRYPOINT y\nEXPOSE 80 443/tcp\nVOLUME /data [\n\
         STOPSIGNAL 9\nHEALTHCHECK NONE\nONBUILD RUN x",
    );
    let env: Vec<_> = plan.config.env.iter().filter(|(key, _)| *key != "PATH").collect();
    let expected = [("A", "1"), ("B", ""), ("OLD", "the rest")];
    assert_eq!(
        env,
        expected
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .iter()
            .map(|(k, v)| (k, v))
            .collect::<Vec<_>>()
    );
    assert_eq!((plan.config.user, plan.config.directory.as_deref()), (None, Some("/sub")));
    let ignored = plan.steps.iter().filter(|step| matches!(step.action, Action::Ignored(_)));
    assert_eq!(ignored.count(), 7);
    assert_eq!(plan.steps[0].text, "FROM nodeops/sandbox:debian");
}

#[test]
fn arguments_before_from_must_be_named_again() {
    let text = "ARG V=7\nFROM nodeops/sandbox:debian\nENV A=$V\nARG V\nENV B=$V";
    let plan = Dockerfile::parse(text).unwrap().plan(&ImageConfig::default()).unwrap();
    assert_eq!((plan.config.env["A"].as_str(), plan.config.env["B"].as_str()), ("", "7"));
}

#[test]
fn a_base_brings_its_own_configuration() {
    let env = [("PATH".to_owned(), "/b".to_owned())].into();
    let base = ImageConfig { env, directory: Some("/w".into()), user: Some("u".into()) };
    let dockerfile = Dockerfile::parse(&format!("{FROM}ENV PATH=/a:$PATH\nWORKDIR x")).unwrap();
    let config = dockerfile.plan(&base).unwrap().config;
    assert_eq!(config.env["PATH"], "/a:/b");
    assert_eq!((config.directory.as_deref(), config.user.as_deref()), (Some("/w/x"), Some("u")));
}
