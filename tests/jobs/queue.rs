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
        conversation_id: "another".into(),
        command: argv(&["anything"]),
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
fn the_memory_of_tokens_is_bounded() {
    let mut bench = Bench::with(Settings {
        remembered: 3,
        remembered_bytes: 10_000,
        ..Settings::default()
    });
    let tokens: Vec<String> = (0..4)
        .map(|_| {
            let token = bench.submit(shell("seq 5000"));
            bench.course(&token).result();
            token
        })
        .collect();
    // The oldest is forgotten, so it runs again; of the others the younger ones still have their tails.
    for (token, tail) in tokens[1..].iter().zip([0, 4096, 4096]) {
        bench.submit_as(token, shell("false"));
        let result = bench.course(token).result();
        assert_eq!(
            (result.stdout_bytes, result.tail.stdout.data.len()),
            (23_893, tail)
        );
    }
    bench.submit_as(&tokens[0], shell("false"));
    assert_eq!(bench.course(&tokens[0]).result().status, Status::Failed);
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
