//! How a job is ended, and what goes with it.

use super::*;

#[test]
fn a_job_that_runs_too_long_is_ended() {
    for pidfd in [true, false] {
        let mut bench = Bench::with(Settings {
            pidfd,
            ..Settings::default()
        });
        let mut command = shell("echo before; exec sleep 1000");
        command.timeout_seconds = Some(0.3);
        let course = bench.run(command);
        assert_eq!(course.text(), "before\n");
        let result = course.result();
        assert_eq!(
            (result.status, result.exit_code, result.signal),
            (Status::TimedOut, None, Some(15))
        );
        assert_eq!(result.message.as_deref(), Some("it ran longer than 0.3 s"));
        assert!(result.elapsed_ms >= 300);
    }
}

#[test]
fn who_ignores_term_is_killed_after_the_grace() {
    for pidfd in [true, false] {
        let mut bench = Bench::with(Settings {
            pidfd,
            ..Settings::default()
        });
        let stubborn = "trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done";
        let token = bench.submit(shell(stubborn));
        bench.until_said(&token, "ready");
        bench.cancel(&token, Some(0.3)).unwrap();
        let result = bench.course_from_middle(&token).result();
        assert!(result.tail.stdout.data.contains("no"));
        assert_eq!((result.status, result.signal), (Status::Cancelled, Some(9)));

        // A second cancel does not wait, and no grace at all does not even ask.
        let token = bench.submit(shell(stubborn));
        bench.until_said(&token, "ready");
        bench.cancel(&token, Some(3600.0)).unwrap();
        bench.until_said(&token, "no");
        bench.cancel(&token, Some(3600.0)).unwrap();
        assert_eq!(bench.course_from_middle(&token).result().signal, Some(9));
        let token = bench.submit(shell(stubborn));
        bench.until_said(&token, "ready");
        bench.cancel(&token, Some(0.0)).unwrap();
        let result = bench.course_from_middle(&token).result();
        assert_eq!(result.signal, Some(9));
        assert!(!result.tail.stdout.data.contains("no"));
    }
}

#[test]
fn grandchildren_go_with_a_cancelled_job() {
    let mut bench = Bench::new();
    // One that goes when asked, one that does not and holds the output, one that does not and holds nothing.
    let token = bench.submit(shell(
        "sleep 1000 & echo $!; (trap '' TERM; sleep 1000 & wait) & echo $!; \
         (trap '' TERM; exec sleep 1000) >/dev/null 2>&1 & echo $!; echo $$; echo ready; wait",
    ));
    let mut said = String::new();
    while !said.contains("ready") {
        let message = bench.next(&token);
        if message.kind == "output" {
            said += &message.read::<Output>().unwrap().data;
        }
    }
    let pids: Vec<&str> = said.lines().filter(|l| *l != "ready").collect();
    assert_eq!(pids.len(), 4);
    // The shells have to have come as far as their traps.
    for pid in &pids[1..3] {
        until("the trap is set", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
            let ignored = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
            ignored & (1 << 14) != 0
        });
    }
    bench.cancel(&token, Some(0.3)).unwrap();
    let result = bench.course_from_middle(&token).result();
    assert_eq!(result.status, Status::Cancelled);
    assert!(!result.leaked);
    for pid in pids {
        until("the whole group is gone", || !lives(pid));
    }
}

#[test]
fn a_process_left_behind_does_not_hold_the_job() {
    for pidfd in [true, false] {
        let mut bench = Bench::with(Settings {
            pidfd,
            ..Settings::default()
        });
        let course = bench.run(shell("sleep 20 & echo $!"));
        let pid = course.text().trim().to_owned();
        let result = course.result();
        assert_eq!((result.status, result.leaked), (Status::Succeeded, true));
        assert!(result.elapsed_ms < 15_000);
        assert!(lives(&pid), "it was started to stay");
        let kill = bench.run(argv(&["kill", &pid]));
        assert_eq!(kill.result().status, Status::Succeeded);
        // One that has let go of the output is nobody's business.
        let result = bench
            .run(shell("sleep 1 >/dev/null 2>&1 & echo hi"))
            .result();
        assert_eq!((result.status, result.leaked), (Status::Succeeded, false));
    }
}

#[test]
fn stopping_ends_everything_in_time() {
    let mut bench = Bench::with(Settings {
        workers: 2,
        ..Settings::default()
    });
    let polite = bench.submit(shell(
        "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done",
    ));
    let stubborn = bench.submit(shell(
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    ));
    bench.until_said(&polite, "ready");
    bench.until_said(&stubborn, "ready");
    let waiting = bench.submit(argv(&["true"]));
    let start = Instant::now();
    bench.pool.stop(Duration::from_millis(500));
    // The whole of it has five seconds on a quiet machine; this one may be busy.
    assert!(start.elapsed() < Duration::from_secs(5));
    let result = bench.course_from_middle(&polite).result();
    assert_eq!(
        (result.status, result.exit_code),
        (Status::Cancelled, Some(3))
    );
    assert_eq!(result.message.as_deref(), Some("the agent stops"));
    assert_eq!(result.tail.stdout.data, "ready\nbye\n");
    let result = bench.course_from_middle(&stubborn).result();
    assert_eq!((result.status, result.signal), (Status::Cancelled, Some(9)));
    let result = bench.course(&waiting).result();
    assert_eq!(
        (result.status, result.started_at),
        (Status::Cancelled, None)
    );
    assert_eq!(bench.run(argv(&["true"])).error().code, ErrorCode::Refused);
    assert!(bench.pool.list().is_empty());
}

#[test]
fn a_full_outbox_does_not_hold_up_the_stop() {
    let mut bench = Bench::new();
    let token = bench.submit(argv(&["cat", "/dev/zero"]));
    until("the outbox is full", || bench.sink.len() > 4);
    bench.pool.stop(Duration::from_secs(1));
    assert!(bench.pool.list().is_empty());
    let result = bench.course_from_middle(&token).result();
    assert_eq!(result.status, Status::Cancelled);
    assert!(result.dropped > 0);
}

#[test]
fn the_jobs_of_a_client_go_with_it() {
    let mut bench = Bench::new();
    let client = outbox();
    let mine = bench.submit(shell("echo ready; exec sleep 1000"));
    bench.until_said(&mine, "ready");
    bench.pool.submit(Request {
        token: "theirs".into(),
        kind: "command".to_owned(),
        conversation_id: "theirs".into(),
        work: Work::Command(shell("exec sleep 1000")),
        name: None,
        holds: None,
        sink: Arc::clone(&client),
        origin: Origin::Local,
    });
    until("it runs", || bench.pool.running() == 2);
    client.close();
    bench.pool.cancel_of(&client);
    until("it is gone", || bench.pool.running() == 1);
    assert_eq!(bench.state(&mine).unwrap().state, "running");
    bench.cancel(&mine, None).unwrap();
    bench.course_from_middle(&mine).result();
}
