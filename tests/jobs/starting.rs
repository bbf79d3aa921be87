//! How a job starts, and as what.

use super::*;

#[test]
fn a_command_runs_and_tells_all() {
    let mut bench = Bench::new();
    let course = bench.run(argv(&["printf", "%s|", "a b", "$HOME", ""]));
    assert_eq!(course.accepted, [Accepted::default()]);
    assert_eq!(course.text(), "a b|$HOME||");
    let result = course.result();
    assert_eq!(
        (result.status, result.exit_code, result.signal),
        (Status::Succeeded, Some(0), None)
    );
    assert_eq!((result.stdout_bytes, result.stderr_bytes), (11, 0));
    assert_eq!(result.tail.stdout.data, "a b|$HOME||");
    assert!((result.started_at.unwrap() - clock::now()).abs() < 60.0);
    assert!(!result.leaked);

    let course = bench.run(shell("echo out; echo err >&2; exit 7"));
    assert_eq!(
        (course.text(), course.stderr.as_slice()),
        ("out\n", &b"err\n"[..])
    );
    let result = course.result();
    assert_eq!((result.status, result.exit_code), (Status::Failed, Some(7)));
    assert_eq!(result.tail.stderr.data, "err\n");
    let result = bench.run(shell("kill -9 $$")).result();
    assert_eq!(
        (result.status, result.exit_code, result.signal),
        (Status::Failed, None, Some(9))
    );
}

#[test]
fn what_cannot_start_ends_with_an_error_that_says_why() {
    let mut bench = Bench::new();
    let course = bench.run(argv(&["no-such-program"]));
    assert_eq!(course.accepted.len(), 1);
    let error = course.error();
    assert_eq!(error.code, ErrorCode::NotFound);
    assert!(error.message.contains("\"no-such-program\""));
    let course = bench.run(Command::default());
    assert_eq!(course.accepted.len(), 0);
    assert_eq!(course.error().code, ErrorCode::Invalid);
    let again = bench.submit(argv(&["/no/such"]));
    let first = bench.course(&again).error();
    bench.submit_as(&again, argv(&["true"]));
    assert_eq!(bench.course(&again).error(), first);
}

#[test]
fn a_job_gets_its_environment_and_not_the_agents() {
    if !alone(
        "starting::a_job_gets_its_environment_and_not_the_agents",
        "",
    ) {
        return;
    }
    let mut bench = Bench::with(Settings {
        environment: vec![("TRITON_SOCKET".into(), "/run/triton.sock".into())],
        ..Settings::default()
    });
    assert!(std::env::var_os("TRITON_IDENTIFIER").is_some());
    let mut command =
        shell("pwd; echo \"$A|$TRITON_IDENTIFIER|$TRITON_SOCKET|$TRITON_JOB|${PATH:+path}\"");
    command.env.insert("A".into(), "b c".into());
    command.env.insert("TRITON_JOB".into(), "mine".into());
    command.cwd = Some("/usr".into());
    let token = bench.submit(command);
    let expected = format!("/usr\nb c||/run/triton.sock|{token}|path\n");
    assert_eq!(bench.course(&token).text(), expected);
    assert_eq!(bench.run(argv(&["pwd"])).text(), "/\n");
}

#[test]
fn a_job_starts_clean() {
    let mut bench = Bench::new();
    let course = bench.run(shell(
        "grep -E '^Sig(Blk|Ign)' /proc/self/status; cat /proc/self/oom_score_adj; echo $$; \
         cut -d' ' -f5 /proc/$$/stat; ls /proc/$$/fd",
    ));
    let text = course.text().to_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "SigBlk:\t0000000000000000");
    // Above 31 are the C library's own.
    let ignored = u64::from_str_radix(lines[1].strip_prefix("SigIgn:\t").unwrap(), 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 0);
    assert_eq!(lines[2], "500");
    assert_eq!(lines[3], lines[4], "it leads its own group");
    // Nothing of the agent's is left open; a shell may keep a copy of its own at 10 or above.
    let inherited = |fd: &&&str| fd.parse::<u32>().unwrap() > 2 && fd.parse::<u32>().unwrap() < 10;
    assert_eq!(lines[5..].iter().filter(inherited).count(), 0, "{text}");
}

#[test]
fn a_job_runs_as_somebody_else() {
    let mut bench = Bench::new();
    let mut command = shell("id -un; id -G; echo $HOME $USER $LOGNAME; touch /etc/not-allowed");
    command.user = Some(if is_root() { "nobody" } else { "root" }.into());
    let course = bench.run(command);
    if !is_root() {
        let error = course.error();
        assert_eq!(error.code, ErrorCode::Refused);
        assert!(error.message.contains("root"), "{}", error.message);
        return;
    }
    let lines: Vec<&str> = course.text().lines().collect();
    assert_eq!(lines[0], "nobody");
    assert!(!lines[1].split(' ').any(|group| group == "0"));
    assert!(lines[2].ends_with(" nobody nobody"));
    assert_eq!(course.result().status, Status::Failed);
    assert!(!std::path::Path::new("/etc/not-allowed").exists());

    let mut command = shell("id -u; id -g; id -G; echo $HOME$USER");
    command.user = Some("4242".into());
    command.group = Some("4343".into());
    assert_eq!(bench.run(command).text(), "4242\n4343\n4343\n/\n");
    let mut command = shell("id -u; id -g; id -G");
    command.group = Some("4343".into());
    assert_eq!(bench.run(command).text(), "0\n4343\n4343\n");
    // The agent's PATH may hold folders that the user cannot enter.
    let mut command = argv(&["no-such-program"]);
    command.user = Some("nobody".into());
    command
        .env
        .insert("PATH".into(), "/root/bin:/usr/bin".into());
    assert_eq!(bench.run(command).error().code, ErrorCode::NotFound);
    // A folder is entered as the user, not as the agent.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = argv(&["pwd"]);
    command.user = Some("nobody".into());
    command.cwd = Some(folder.path().to_str().unwrap().into());
    assert_eq!(bench.run(command).error().code, ErrorCode::Refused);
}

#[test]
fn priority_and_memory_are_limited() {
    let mut bench = Bench::new();
    let mut command = argv(&["nice"]);
    command.nice = Some(7);
    assert_eq!(bench.run(command).text(), "7\n");
    let mut command = shell("ulimit -v");
    command.memory_bytes = Some(100 << 20);
    assert_eq!(bench.run(command).text(), "102400\n");
    let mut command = shell("exec dd if=/dev/zero of=/dev/null bs=300M count=1");
    command.memory_bytes = Some(100 << 20);
    assert_eq!(bench.run(command).result().status, Status::Failed);
}
