//! Which job runs, when, and how often.

use super::*;

#[test]
fn a_token_starts_one_process() {
    let mut bench = Bench::with(Settings {
        workers: 1,
        ..Settings::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("starts").to_str().unwrap().to_owned();
    let once = shell(&format!("echo x >> {path}; read line; echo done"));
    let gate = folder.path().join("gate").to_str().unwrap().to_owned();
    bench.run(argv(&["mkfifo", &gate]));
    let gated = shell(&format!(
        "echo x >> {path}; echo started; read line < {gate}; echo done"
    ));
    let (first, second) = (bench.submit(gated), id::random());
    bench.until_said(&first, "started");
    bench.submit_as(&second, once);
    let says = |bench: &mut Bench, token: &str| bench.next(token).read::<Accepted>().unwrap().state;
    assert_eq!(says(&mut bench, &second), None);
    bench.submit_as(&first, argv(&["anything"]));
    bench.submit_as(&second, argv(&["anything"]));
    assert_eq!(says(&mut bench, &first).as_deref(), Some("running"));
    assert_eq!(says(&mut bench, &second).as_deref(), Some("waiting"));
    // The same token from elsewhere gets the end as well.
    let elsewhere = outbox();
    bench.pool.submit(Request {
        token: first.clone(),
        kind: "command".to_owned(),
        conversation_id: "another".into(),
        work: Work::Command(argv(&["anything"])),
        name: None,
        holds: None,
        sink: Arc::clone(&elsewhere),
        origin: Origin::Local,
    });
    assert_eq!(elsewhere.pop().unwrap().kind, "accepted");
    std::fs::write(&gate, "go\n").unwrap();
    let end = bench.course_from_middle(&first).result();
    assert_eq!(end.status, Status::Succeeded);
    until("the end arrives elsewhere", || elsewhere.len() == 1);
    let copy = elsewhere.pop().unwrap();
    assert_eq!(copy.conversation_id, "another");
    assert_eq!(copy.read::<JobResult>().unwrap(), end);
    // Ended, it is answered with its end.
    bench.submit_as(&first, argv(&["anything"]));
    let again = bench.course(&first);
    assert!(again.accepted.is_empty());
    assert_eq!(again.result(), end);
    assert_eq!(
        bench.course_from_middle(&second).result().status,
        Status::Succeeded
    );
    assert_eq!(std::fs::read_to_string(path).unwrap(), "x\nx\n");
}

#[test]
fn the_journal_carries_the_jobs_of_poseidon() {
    let mut bench = Bench::new();
    let token = "asked-by-poseidon";
    let ask = |bench: &Bench, conversation: &str, command: Command| {
        bench.pool.submit(Request {
            token: token.into(),
            kind: "command".to_owned(),
            conversation_id: conversation.into(),
            work: Work::Command(command),
            name: None,
            holds: None,
            sink: Arc::clone(&bench.sink),
            origin: Origin::Poseidon,
        });
    };
    ask(&bench, "talk", shell("echo out; exit 3"));
    until("it has ended", || bench.pool.list().is_empty());
    let records = bench.records(token);
    assert_eq!(records.len(), 2, "{records:?}");
    let accepted = serde_json::json!({"what": "shell", "origin": "poseidon"});
    assert_eq!(records[0], (0, accepted));
    assert_eq!(records[1].0, 2);
    assert_eq!(records[1].1["exitCode"], 3);
    assert_eq!(records[1].1["tail"]["stdout"]["data"], "out\n");
    // Its sink got the output and nothing else; asked again it gets the end.
    assert_eq!(bench.next("talk").kind, "output");
    assert!(bench.sink.is_empty());
    ask(&bench, "again", argv(&["anything"]));
    assert_eq!(bench.course("again").result().exit_code, Some(3));
    assert!(bench.sink.is_empty());
    assert_eq!(bench.records(token).len(), 2);
}

#[test]
fn local_jobs_are_in_the_journal_too() {
    let mut bench = Bench::new();
    let good = bench.submit(argv(&["true"]));
    assert_eq!(bench.course(&good).accepted.len(), 1);
    let codes: Vec<u32> = bench.records(&good).iter().map(|r| r.0).collect();
    assert_eq!(codes, [0, 1]);
    assert_eq!(bench.records(&good)[0].1["origin"], "local");
    let bad = bench.submit(argv(&["no-such-program"]));
    bench.course(&bad).error();
    let records = bench.records(&bad);
    assert_eq!(
        (records[1].0, &records[1].1["code"]),
        (2, &"not-found".into())
    );
    // What is refused is no job.
    let refused = bench.submit(Command::default());
    bench.course(&refused).error();
    assert_eq!(bench.records(&refused), []);
}

#[test]
fn what_has_ended_is_known_however_little_room_there_is() {
    let mut bench = Bench::with(Settings {
        workers: 1,
        queue: 0,
        ..Settings::default()
    });
    let ended = bench.submit(argv(&["true"]));
    let end = bench.course(&ended).result();
    let running = bench.submit(shell("echo ready; exec sleep 1000"));
    bench.until_said(&running, "ready");
    assert_eq!(bench.run(argv(&["true"])).error().code, ErrorCode::Busy);
    bench.submit_as(&ended, argv(&["true"]));
    assert_eq!(bench.course(&ended).result(), end);
    // A request that makes no sense asks where its job stands all the same.
    bench.submit_as(&ended, Command::default());
    assert_eq!(bench.course(&ended).result(), end);
    bench.cancel(&running, None).unwrap();
    bench.course_from_middle(&running).result();
}

#[test]
fn a_job_that_is_open_and_not_here_is_interrupted_and_not_run() {
    let mut bench = Bench::new();
    let acceptance = Acceptance {
        token: "orphan",
        conversation: "orphan",
        what: "x",
        origin: "poseidon",
        reserve: 4096,
    };
    bench.journal.accept(&acceptance).unwrap();
    for _ in 0..2 {
        bench.submit_as("orphan", shell("exit 7"));
        let course = bench.course("orphan");
        assert!(course.accepted.is_empty());
        let result = course.result();
        assert_eq!(
            (result.status, result.exit_code),
            (Status::Interrupted, None)
        );
    }
    assert_eq!(bench.records("orphan").len(), 2, "one end");
    assert!(bench.pool.list().is_empty());
}

#[test]
fn one_token_from_many_sides_at_once_runs_once() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    let line = format!("echo x >> {}", starts.display());
    for round in 0..20 {
        let token = format!("round-{round}");
        let sinks: Vec<_> = (0..4).map(|_| outbox()).collect();
        std::thread::scope(|scope| {
            for sink in &sinks {
                scope.spawn(|| {
                    for _ in 0..3 {
                        bench.pool.submit(Request {
                            token: token.clone(),
                            kind: "command".to_owned(),
                            conversation_id: token.clone(),
                            work: Work::Command(shell(&line)),
                            name: None,
                            holds: None,
                            sink: Arc::clone(sink),
                            origin: Origin::Local,
                        });
                    }
                });
            }
        });
        // Whoever asked gets the end, at whatever moment it asked.
        for sink in &sinks {
            until("its end arrives", || {
                std::iter::from_fn(|| sink.pop()).any(|m| m.kind == "result")
            });
        }
        let codes: Vec<u32> = bench.records(&token).iter().map(|r| r.0).collect();
        assert_eq!(codes, [0, 1]);
    }
    assert_eq!(std::fs::read_to_string(&starts).unwrap().len(), 20 * 2);
}

#[test]
fn the_end_of_a_talkative_job_fits_a_small_journal() {
    let mut bench = Bench::with(Settings {
        end_bytes: 16 * 1024,
        ..Settings::default()
    });
    let mut command = shell("head -c 60000 /dev/urandom; head -c 60000 /dev/zero >&2");
    command.output = OutputMode::Collect;
    let token = bench.submit(command);
    let result = bench.course(&token).result();
    assert_eq!((result.stdout_bytes, result.stderr_bytes), (60_000, 60_000));
    assert!(!result.tail.stdout.data.is_empty());
    let end = &bench.records(&token)[1].1;
    assert!(end.to_string().len() <= 16 * 1024);
}

#[test]
fn too_many_jobs_are_refused_and_order_is_kept() {
    let mut bench = Bench::with(Settings {
        workers: 2,
        queue: 2,
        ..Settings::default()
    });
    let running: Vec<String> = (0..2)
        .map(|_| bench.submit(shell("echo ready; exec sleep 1000")))
        .collect();
    for token in &running {
        bench.until_said(token, "ready");
    }
    let waiting: Vec<String> = (0..2).map(|_| bench.submit(shell("date +%s%N"))).collect();
    assert_eq!((bench.pool.running(), bench.pool.waiting()), (2, 2));
    let refused = bench.run(argv(&["true"]));
    assert_eq!(refused.accepted.len(), 0);
    assert_eq!(refused.error().code, ErrorCode::Busy);
    let state = bench.state(&waiting[0]).unwrap();
    assert_eq!(
        (state.state, state.what.as_str(), state.started_at),
        ("waiting", "shell", None)
    );
    assert!(bench.state(&running[0]).unwrap().started_at.is_some());
    // The second one has not begun: cancelled, it never will.
    bench.cancel(&waiting[1], None).unwrap();
    let result = bench.course(&waiting[1]).result();
    assert_eq!(
        (result.status, result.started_at),
        (Status::Cancelled, None)
    );
    bench.cancel(&running[0], None).unwrap();
    assert_eq!(bench.course(&waiting[0]).result().status, Status::Succeeded);
    assert_eq!(
        bench.course_from_middle(&running[0]).result().status,
        Status::Cancelled
    );
    assert_eq!(
        bench.cancel(&running[0], None).unwrap_err().code,
        ErrorCode::NotFound
    );
    assert_eq!(
        bench.cancel("nobody", None).unwrap_err().code,
        ErrorCode::NotFound
    );
    // All that fit do run, each once.
    let many: Vec<String> = (0..3)
        .map(|n| bench.submit(shell(&format!("echo {n}"))))
        .collect();
    for (n, token) in many.iter().enumerate() {
        assert_eq!(bench.course(token).text(), format!("{n}\n"));
    }
}

#[test]
fn a_job_has_its_time() {
    let mut bench = Bench::new();
    let mut late = argv(&["true"]);
    late.not_after = Some(clock::now() - 1.0);
    let course = bench.run(late);
    assert_eq!(course.accepted.len(), 1);
    let result = course.result();
    assert_eq!((result.status, result.started_at), (Status::Expired, None));
    let early = |seconds: f64| Command {
        not_before: Some(clock::now() + seconds),
        not_after: Some(clock::now() + 3600.0),
        ..argv(&["true"])
    };
    // The one with the later time first, so that the clock's watcher has to be told of an earlier one.
    let never = bench.submit(early(1000.0));
    let times: HashMap<String, f64> = [0.9, 0.3, 0.6]
        .map(|seconds| {
            let command = early(seconds);
            let time = command.not_before.unwrap();
            (bench.submit(command), time)
        })
        .into();
    assert_eq!(
        bench.run(argv(&["true"])).result().status,
        Status::Succeeded
    );
    for (token, time) in times {
        let result = bench.course(&token).result();
        assert_eq!(result.status, Status::Succeeded);
        let late = result.started_at.unwrap() - time;
        assert!((0.0..20.0).contains(&late), "{late}");
    }
    // Nor do long jobs keep a worker's clock from being watched, as long as there is one worker left.
    let due = bench.submit(early(0.5));
    let long: Vec<String> = (0..3)
        .map(|_| bench.submit(shell("exec sleep 1000")))
        .collect();
    assert_eq!(bench.course(&due).result().status, Status::Succeeded);
    for token in long {
        bench.cancel(&token, None).unwrap();
        bench.course(&token).result();
    }
    assert_eq!(bench.state(&never).unwrap().state, "waiting");
    bench.cancel(&never, None).unwrap();
    assert_eq!(bench.course(&never).result().status, Status::Cancelled);
}

/// Waits until it is cancelled, as a transfer does without a connection.
#[derive(Debug)]
struct Waits;

impl triton::job::Task for Waits {
    fn name(&self) -> &'static str {
        "waits"
    }

    fn run(
        &self,
        context: &triton::job::Context<'_>,
    ) -> Result<Option<serde_json::Value>, triton::job::Stop> {
        context.progress(7.0, "waits");
        context.sleep_until(Instant::now() + PATIENCE)?;
        Ok(None)
    }
}

#[test]
fn tasks_that_wait_leave_a_worker_to_commands() {
    let mut bench = Bench::with(Settings {
        workers: 3,
        ..Settings::default()
    });
    let tasks: Vec<String> = std::iter::repeat_with(id::random).take(4).collect();
    for token in &tasks {
        bench.pool.submit(Request {
            token: token.clone(),
            kind: "waits".to_owned(),
            conversation_id: token.clone(),
            work: Work::Task(Arc::new(Waits), triton::message::payload::Bounds::default()),
            name: None,
            holds: None,
            sink: Arc::clone(&bench.sink),
            origin: Origin::Local,
        });
    }
    for _ in 0..2 {
        let course = bench.run(shell("echo x"));
        assert_eq!(course.result().status, Status::Succeeded);
    }
    let running = |bench: &Bench| {
        let tasks = tasks.iter().filter_map(|token| bench.state(token));
        tasks
            .map(|task| task.state == "running")
            .collect::<Vec<_>>()
    };
    until("two of them run", || {
        running(&bench) == [true, true, false, false]
    });
    until("what they say of their progress is listed", || {
        let first = bench.state(&tasks[0]).unwrap();
        first
            .progress
            .is_some_and(|said| (said.percent - 7.0).abs() < 0.1)
    });
    // The next one has the place of one that ends.
    bench.cancel(&tasks[0], None).unwrap();
    until("the third runs", || running(&bench) == [true, true, false]);
    for token in &tasks[1..] {
        bench.cancel(token, None).unwrap();
    }
    until("all end", || bench.pool.list().is_empty());
}
