//! What jobs cost, and what is left of them. Each test has a process of its own.

use super::*;

fn resident() -> u64 {
    triton::plugin::health::agent_rss().unwrap()
}

#[test]
fn much_output_needs_little_memory() {
    if !alone("resources::much_output_needs_little_memory", "") {
        return;
    }
    let mut bench = Bench::new();
    let mut most = 0;
    let mut first = 0;
    for round in 0..2 {
        let token = bench.submit(argv(&["head", "-c", "100000000", "/dev/zero"]));
        let mut bytes = 0;
        loop {
            // One at a time: what a test hoards is not the agent's.
            let message = bench.next_only(&token);
            match message.kind.as_str() {
                "output" => {
                    let output: Output = message.read().unwrap();
                    bytes += output.into_bytes().unwrap().len();
                }
                "result" => break,
                _ => {}
            }
            most = most.max(resident());
            if first == 0 && bytes > 10_000_000 {
                first = most;
            }
        }
        assert_eq!(bytes, 100_000_000, "round {round}");
    }
    assert!(most - first < 2 << 20, "{first} became {most}");
}

#[test]
fn nothing_is_left_of_three_hundred_jobs() {
    if !alone("resources::nothing_is_left_of_three_hundred_jobs", "") {
        return;
    }
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let mut bench = Bench::new();
    let round = |bench: &mut Bench| {
        let tokens: Vec<String> = (0..12)
            .map(|n| {
                let mut command = match n % 6 {
                    0 => shell("echo hi; echo there >&2"),
                    1 => argv(&["/no/such/program"]),
                    2 => shell("cat; exit 3"),
                    3 => shell("sleep 0.05 & echo left behind"),
                    4 => argv(&["true"]),
                    _ => shell("exec sleep 1000"),
                };
                if n % 6 == 2 {
                    command.stdin = Some(text::encode(&[b'x'; 1000]));
                }
                if n % 6 == 5 {
                    command.timeout_seconds = Some(0.02);
                }
                bench.submit(command)
            })
            .collect();
        for token in tokens {
            bench.course(&token);
        }
    };
    round(&mut bench);
    let before = (fds(), threads());
    let memory = resident();
    for _ in 0..25 {
        round(&mut bench);
    }
    assert_eq!((fds(), threads()), before);
    assert!(
        resident() < memory + (1 << 20),
        "{memory} became {}",
        resident()
    );
    let me = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let parent = stat.rsplit(')').next().unwrap().split_whitespace().nth(1);
        assert_ne!(parent, Some(me.as_str()), "{stat}");
    }
    drop(bench);
    until("the workers are gone", || threads() < before.1);
}

#[test]
fn a_process_without_descriptors_left_recovers() {
    if !alone(
        "resources::a_process_without_descriptors_left_recovers",
        "ulimit -n 60;",
    ) {
        return;
    }
    let mut bench = Bench::new();
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    for free in 0..8 {
        let course = bench.run(argv(&["true"]));
        if let Some(error) = course.error {
            assert_eq!(error.code, ErrorCode::Io);
            assert!(error.message.contains("os error 24"), "{}", error.message);
        } else {
            assert!(free > 3, "with {free} free it cannot run");
        }
        files.pop();
    }
    drop(files);
    assert_eq!(
        bench.run(argv(&["true"])).result().status,
        Status::Succeeded
    );
}

#[test]
fn a_silent_job_wakes_nobody() {
    if !alone("resources::a_silent_job_wakes_nobody", "") {
        return;
    }
    let mut bench = Bench::new();
    let token = bench.submit(shell("echo ready; exec sleep 1000"));
    bench.until_said(&token, "ready");
    let switches = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let switches = tasks.filter_map(|task| {
            let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = status.lines().find(|l| l.starts_with("voluntary_ctxt"))?;
            let count: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            comm.starts_with("job-").then_some(count)
        });
        switches.sum::<u64>()
    };
    // It may still be on its way to bed; once there, it stays there.
    let quiet = (0..5).any(|_| {
        let before = switches();
        std::thread::sleep(Duration::from_secs(1));
        switches() == before
    });
    assert!(quiet);
    bench.cancel(&token, None).unwrap();
    bench.course_from_middle(&token).result();
}
