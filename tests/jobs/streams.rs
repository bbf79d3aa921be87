//! What flows into a job and out of it.

use super::*;

#[test]
fn stdin_flows_in_while_output_flows_out() {
    let mut bench = Bench::new();
    // More than pipes hold, both ways, and bytes of every value.
    let bytes: Vec<u8> = (0..600_000_u32)
        .map(|n| (n * 31 / 7).to_le_bytes()[0])
        .collect();
    let mut command = argv(&["cat"]);
    command.stdin = Some(text::encode(&bytes));
    let course = bench.run(command);
    assert!(course.stdout == bytes);
    let result = course.result();
    assert_eq!(
        (result.status, result.stdout_bytes),
        (Status::Succeeded, 600_000)
    );
    // A process that does not want all of it is not disturbed.
    let mut command = shell("head -c 3");
    command.stdin = Some(text::encode(&bytes));
    assert_eq!(bench.run(command).stdout, bytes[..3]);
    let mut command = argv(&["cat"]);
    command.stdin = Some(String::new());
    assert_eq!(bench.run(command).result().status, Status::Succeeded);
    assert_eq!(bench.run(argv(&["cat"])).stdout, b"");
}

#[test]
fn output_arrives_byte_for_byte() {
    let mut bench = Bench::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect();
    std::fs::write(file.path(), &bytes).unwrap();
    let path = file.path().to_str().unwrap();
    let course = bench.run(argv(&["cat", path]));
    assert!(course.stdout == bytes);
    assert!(course.pieces <= 30, "{}", course.pieces);
    let tail = course.result().tail.stdout.into_bytes().unwrap();
    assert!(tail == bytes[bytes.len() - 4096..]);

    // A character that comes in two halves travels in one piece, as text.
    let token = bench.submit(shell(
        r"printf 'a\342\202'; sleep 0.3; printf '\254b'; sleep 0.3; printf '\342'",
    ));
    let mut pieces = Vec::new();
    loop {
        let message = bench.next(&token);
        match message.kind.as_str() {
            "output" => pieces.push(message.read::<Output>().unwrap()),
            "result" => break,
            _ => {}
        }
    }
    let last = pieces.pop().unwrap();
    assert_eq!(
        (last.encoding, last.into_bytes().unwrap()),
        (text::Encoding::Base64, vec![0xe2])
    );
    assert!(pieces.iter().all(|p| p.encoding == text::Encoding::Utf8));
    assert_eq!(pieces.iter().map(|p| &*p.data).collect::<String>(), "a€b");
}

#[test]
fn output_can_be_collected_or_discarded() {
    let mut bench = Bench::new();
    let mut command = shell("seq 10000; echo oops >&2");
    command.output = OutputMode::Collect;
    let course = bench.run(command.clone());
    assert_eq!(course.pieces, 0);
    let result = course.result();
    assert!(result.tail.stdout.data.starts_with("1\n2\n"));
    assert!(result.tail.stdout.data.ends_with("\n10000\n"));
    assert_eq!(result.tail.stdout.data.len() as u64, result.stdout_bytes);
    assert_eq!(
        (result.tail.stderr.data.as_str(), result.dropped),
        ("oops\n", 0)
    );
    command.shell = Some("seq 100000".into());
    let result = bench.run(command.clone()).result();
    assert_eq!(result.tail.stdout.data.len(), 64 * 1024);
    command.output = OutputMode::Discard;
    let course = bench.run(command);
    assert_eq!(course.pieces, 0);
    let result = course.result();
    assert_eq!((result.stdout_bytes, result.dropped), (588_895, 0));
    assert_eq!(result.tail.stdout.data.len(), 4096);
    assert!(result.tail.stdout.data.ends_with("\n100000\n"));
}

#[test]
fn a_peer_that_does_not_read_stops_the_process() {
    let mut bench = Bench::new();
    let token = bench.submit(shell("echo $$; exec head -c 20000000 /dev/zero"));
    // The first piece only: the shell's own line.
    let pid = loop {
        let message = bench.next_only(&token);
        if message.kind == "output" {
            let text = message.read::<Output>().unwrap().into_bytes().unwrap();
            let line = text.split(|b| *b == b'\n').next().unwrap();
            break String::from_utf8(line.to_vec()).unwrap();
        }
    };
    let written = || -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let line = io.lines().find_map(|l| l.strip_prefix("wchar: ")).unwrap();
        line.parse().unwrap()
    };
    let mut last = (written(), Instant::now());
    until("it writes no more", || {
        let now = written();
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0 && last.1.elapsed() > Duration::from_millis(500)
    });
    assert!(written() < 2_000_000, "{}", written());
    assert_eq!(bench.state(&token).unwrap().state, "running");
    let course = bench.course_from_middle(&token);
    let result = course.result();
    assert_eq!((result.status, result.dropped), (Status::Succeeded, 0));
    assert!(result.stdout_bytes > 20_000_000);
    // Blocked there, it can be cancelled all the same.
    let token = bench.submit(shell("echo $$; exec cat /dev/zero"));
    bench.next_only(&token);
    until("the outbox is full", || bench.sink.len() > 1);
    bench.cancel(&token, None).unwrap();
    let result = bench.course_from_middle(&token).result();
    assert_eq!(
        (result.status, result.signal),
        (Status::Cancelled, Some(15))
    );
}

#[test]
fn without_a_connection_output_is_dropped_and_counted() {
    let mut bench = Bench::new();
    bench.sink.set_online(false);
    let token = bench.submit(argv(&["head", "-c", "1000000", "/dev/zero"]));
    until("it is over", || bench.pool.list().is_empty());
    bench.sink.set_online(true);
    let result = bench.course(&token).result();
    assert_eq!(
        (result.stdout_bytes, result.dropped),
        (1_000_000, 1_000_000)
    );
    assert_eq!(result.tail.stdout.into_bytes().unwrap(), [0; 4096]);
    // A connection that breaks while the job waits for room lets it go on.
    let token = bench.submit(argv(&["head", "-c", "5000000", "/dev/zero"]));
    until("the outbox is full", || bench.sink.len() > 4);
    bench.sink.set_online(false);
    until("it is over", || bench.pool.list().is_empty());
    bench.sink.set_online(true);
    let result = bench.course_from_middle(&token).result();
    assert!(result.dropped > 4_000_000 && result.dropped < 5_000_000);
}
