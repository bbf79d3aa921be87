use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::fmt::Write as _;

fn read<T: DeserializeOwned>(text: &str) -> Result<T, PayloadError> {
    from_text(Some(text))
}

fn refusal<T: DeserializeOwned + fmt::Debug>(text: &str) -> String {
    let error = read::<T>(text).unwrap_err();
    let text = error.to_string();
    text.strip_prefix("the payload cannot be read: ")
        .unwrap()
        .to_owned()
}

/// JSON as a peer may write it, also with a name twice.
#[derive(Debug, Clone)]
enum Json {
    Plain(String),
    List(Vec<Json>),
    Map(Vec<(&'static str, Json)>),
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::List(list) => {
                let list: Vec<_> = list.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", list.join(" , "))
            }
            Self::Map(map) => {
                let map: Vec<_> = map.iter().map(|(k, v)| format!("\"{k}\": {v}")).collect();
                write!(f, "{{{}}}", map.join(","))
            }
        }
    }
}

/// Fields of the types below, and one of none.
const NAMES: &str = "argv shell env cwd timeoutSeconds nice memoryBytes output notAfter status exitCode elapsedMs leaked \
    tail stderr data message name attributes heartbeatSeconds deltas acked keys publicKey uptime processorLoad \
    fileSystems spaceTotal agent rss metrics value path ref size owner entries type manifest unknown";
/// Those that are structs, or lists of them. There serde takes a list of values too, which is refused here.
const STRUCTS: &str = "tail stderr agent manifest keys fileSystems metrics entries";

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(NAMES.split_ascii_whitespace().collect::<Vec<_>>())
}

fn is_struct(name: &str) -> bool {
    STRUCTS.split(' ').any(|one| one == name)
}

fn json() -> impl Strategy<Value = Json> {
    let plain = prop_oneof![
        prop::sample::select(
            "null true false 0 -0 1 -1 1.0 0.1 -2.5e-3 1e308 2147483648 4294967296 18446744073709551615 \
             18446744073709551616 -9223372036854775808 5.0e-324 \"\" \"1\" \"true\" \"collect\" \"timed-out\" \
             \"directory\" \"é\\u00e9\\n\\ud83d\\ude00\""
                .split(' ')
                .collect::<Vec<_>>()
        )
        .prop_map(str::to_owned),
        any::<f64>()
            .prop_filter("JSON has it", |n| n.is_finite())
            .prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
    ];
    plain
        .prop_map(Json::Plain)
        .prop_recursive(4, 48, 8, |inner| {
            prop_oneof![
                2 => prop::collection::vec(inner.clone(), 0..5).prop_map(Json::List),
                3 => map(inner),
            ]
        })
}

fn map(inner: impl Strategy<Value = Json> + 'static) -> impl Strategy<Value = Json> {
    let pair = (name(), inner).prop_map(|(name, value)| {
        let value = if is_struct(name) {
            without_lists(value, true)
        } else {
            value
        };
        (name, value)
    });
    prop::collection::vec(pair, 0..7).prop_map(Json::Map)
}

fn without_lists(json: Json, outer: bool) -> Json {
    match json {
        Json::List(list) if outer => {
            let maps = list.into_iter().map(|item| without_lists(item, false));
            Json::Map(vec![("unknown", Json::List(maps.collect()))])
        }
        Json::List(_) => Json::Plain("null".to_owned()),
        other => other,
    }
}

/// The same as `serde_json`'s own reader says, also where that refuses. Only a name that stands twice in a map is refused
/// by ours alone.
fn agrees<T: DeserializeOwned + fmt::Debug>(text: &str) -> Result<(), TestCaseError> {
    let own = match read::<T>(text) {
        Ok(own) => Some(format!("{own:?}")),
        Err(e) => {
            let said = e.to_string();
            if let Some((_, name)) = said.split_once("duplicate field `") {
                let name = format!("\"{}\"", name.trim_end_matches('`'));
                prop_assert!(text.matches(&name).count() > 1, "{}: {}", text, said);
                return Ok(());
            }
            None
        }
    };
    let other = serde_json::from_str::<T>(text).ok();
    let other = other.map(|other| format!("{other:?}"));
    prop_assert_eq!(own, other, "{}", text);
    Ok(())
}

/// XML of a value: a list is its element repeated.
fn xml(name: &str, value: &Value, out: &mut String) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| xml(name, item, out)),
        Value::Object(map) => {
            writeln!(out, "<{name}>").unwrap();
            map.iter().for_each(|(name, value)| xml(name, value, out));
            write!(out, "</{name}>").unwrap();
        }
        Value::String(text) => {
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            write!(out, "<{name}>{text}</{name}>").unwrap();
        }
        other => write!(out, "<{name}> {other}\n</{name}>").unwrap(),
    }
}

fn both<T: DeserializeOwned + Serialize + PartialEq + fmt::Debug>(
    wanted: &T,
) -> Result<(), TestCaseError> {
    let mut text = String::new();
    xml("x", &serde_json::to_value(wanted).unwrap(), &mut text);
    prop_assert_eq!(&read::<T>(&to_json(wanted)).unwrap(), wanted);
    prop_assert_eq!(&read::<T>(&text).unwrap(), wanted, "{}", text);
    Ok(())
}

proptest! {
    #[test]
    fn json_is_read_as_serde_json_reads_it(payload in map(json())) {
        let text = payload.to_string();
        agrees::<Command>(&text)?;
        agrees::<JobResult>(&text)?;
        agrees::<Welcome>(&text)?;
        agrees::<Heartbeat>(&text)?;
        agrees::<FileRequest>(&text)?;
        agrees::<HistoryPut>(&text)?;
        agrees::<Value>(&text)?;
    }

    #[test]
    fn one_field_is_read_as_serde_json_reads_it(
        name in name(),
        value in json(),
    ) {
        let value = if is_struct(name) { without_lists(value, true) } else { value };
        let text = format!("{{\"status\":\"failed\",\"{name}\":{value}}}");
        agrees::<Command>(&text)?;
        agrees::<JobResult>(&text)?;
        agrees::<Welcome>(&text)?;
        agrees::<Heartbeat>(&text)?;
        agrees::<FileRequest>(&text)?;
    }

    #[test]
    fn broken_json_is_refused_as_serde_json_refuses_it(
        payload in map(json()), at in any::<prop::sample::Index>(), with in "[\"{}\\[\\],:0x ]{0,2}",
    ) {
        let mut text = payload.to_string();
        let at = at.index(text.len());
        if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
            text.replace_range(at..=at, &with);
        }
        // What stands in a list may have become a struct's.
        if text.starts_with('{') {
            agrees::<Value>(&text)?;
        }
    }

    #[test]
    fn json_and_xml_of_the_same_are_read_alike(
        words in prop::collection::vec("\\PC{0,12}", 1..4),
        env in prop::collection::btree_map("[A-Z_]{1,6}", "\\PC{0,12}", 0..4),
        (nice, memory) in any::<(Option<i32>, Option<u64>)>(),
        time in prop::option::of(-1e18..1e18),
        loads in prop::collection::vec(0.0..1.0, 1..5),
        (flag, size) in any::<(bool, u64)>(),
    ) {
        both(&Command {
            argv: Some(words.clone()),
            shell: words.first().cloned(),
            env: env.clone(),
            timeout_seconds: time,
            nice,
            memory_bytes: memory,
            output: OutputMode::Collect,
            ..Command::default()
        })?;
        let metric = |value: &f64| Metric { name: words[0].clone(), value: *value, unit: None };
        both(&Heartbeat {
            delta: flag,
            uptime: time,
            processor_load: Some(loads.clone()),
            physical_memory_total: Some(size),
            metrics: Some(loads.iter().map(metric).collect()),
            agent: Some(AgentHealth { rss: size, ..AgentHealth::default() }),
            ..Heartbeat::default()
        })?;
        both(&Welcome { attributes: env, acked: memory, deltas: flag, ..Welcome::default() })?;
    }
}

#[test]
fn an_error_says_where() {
    for (text, reason) in [
        (
            r#"{"nice":"3"}"#,
            "nice: invalid type: string \"3\", expected a whole number",
        ),
        (
            "<c><nice> high </nice></c>",
            "nice: invalid type: string \"high\", expected a whole number",
        ),
        (
            r#"{"argv":["a",1]}"#,
            "argv[1]: invalid type: integer `1`, expected a string",
        ),
        (
            r#"{"env":{"A":null}}"#,
            "env.A: invalid type: null, expected a string",
        ),
        (r#"{"shell":"a","shell":"b"}"#, "duplicate field `shell`"),
        ("<c><shell/><cwd/><shell/></c>", "duplicate field `shell`"),
        (r#"{"shell":"a","x":1,"x":2}"#, "duplicate field `x`"),
        (
            r#"{"shell":"a","env":{"A":"1","B":"2","A":"3"}}"#,
            "env: duplicate field `A`",
        ),
        (
            "<c><shell>a</shell><shell>b</shell></c>",
            "shell: invalid type: sequence, expected a string",
        ),
        (
            "<c><nice><x/></nice></c>",
            "nice: invalid type: map, expected a whole number",
        ),
        (
            r#"{"shell":"a""#,
            "EOF while parsing an object at line 1 column 12",
        ),
        (
            r#"{"shell":"a"} x"#,
            "trailing characters at line 1 column 15",
        ),
    ] {
        assert_eq!(refusal::<Command>(text), reason, "{text}");
    }
    assert_eq!(
        refusal::<FileRequest>(r#"{"entries":[{},{"mtime":true}]}"#),
        "entries[1].mtime: invalid type: boolean `true`, expected a number"
    );
    assert_eq!(
        refusal::<Heartbeat>(r#"{"agent":7}"#),
        "agent: invalid type: integer `7`, expected an object"
    );
    assert_eq!(refusal::<Cancel>("{}"), "missing field `job`");
    let long = format!("{{\"env\":{{\"{}\":1}}}}", "é".repeat(10_000));
    assert!(refusal::<Command>(&long).len() < 300);
}

#[test]
fn a_struct_is_a_map_and_a_word_is_a_text() {
    assert!(refusal::<Hello>(r#"{"agent":["1",1]}"#).starts_with("agent: invalid type: sequence"));
    assert!(
        refusal::<Command>(r#"{"output":{"stream":null}}"#)
            .starts_with("output: invalid type: map")
    );
}

#[test]
fn what_is_kept_as_it_is_written_is_not_read_by_way_of_a_tree() {
    let text = r#"{"records":[{"id":1,"token":"t","code":200,"etime":1,"ctime":1,"data":{ "a" : 1.00 }}]}"#;
    let history: History = from_json_text(Some(text)).unwrap();
    assert_eq!(history.records[0].data.get(), r#"{ "a" : 1.00 }"#);
    assert!(read::<History>(text).is_err());
    assert!(from_json_text::<History>(Some("<h/>")).is_err());
}

#[test]
fn a_payload_may_have_as_many_values_as_a_real_one_needs() {
    let list = |item: &str, n: usize| format!("[{}{item}]", format!("{item},").repeat(n - 1));
    // As many entries as a message of 1 MiB holds.
    let entry = r#"{"path":"a","type":"directory"}"#;
    let text = format!("{{\"entries\":{}}}", list(entry, (1 << 20) / entry.len()));
    assert!(read::<FileRequest>(&text).unwrap().entries.unwrap().0.len() > 30_000);
    let value = format!("{{\"data\":{}}}", list("7", 32 * 1024));
    assert!(read::<HistoryPut>(&value).is_ok());
    // What nobody sends who means it.
    for item in ["0", "[]", "{}", "{\"\":0}"] {
        let text = format!(
            "{{\"unknown\":{}}}",
            list(item, (1 << 20) / (item.len() + 1))
        );
        let reason = refusal::<Command>(&text);
        assert!(reason.starts_with("too many values"), "{reason}");
    }
    let read: Vec<u32> = from_json(&list("1", 500_000)).unwrap();
    assert_eq!(read.len(), 500_000);
}

#[test]
fn deeply_nested_json_is_refused() {
    let deep = |n: usize| format!("{{\"x\":{}{}}}", "[".repeat(n), "]".repeat(n));
    assert_eq!(read::<Command>(&deep(126)).unwrap(), Command::default());
    let reason = refusal::<Command>(&deep(200_000));
    assert!(reason.starts_with("recursion limit exceeded"), "{reason}");
}

#[test]
fn a_list_is_read_item_by_item() {
    let text = r#"[{"path":"a"},{"path":"b","mode":7}]"#;
    let error = from_json_list::<Entry>(text, 9).unwrap_err().to_string();
    assert!(
        error.starts_with("mode: invalid type: integer `7`, expected a string at line 1"),
        "{error}"
    );
    let text = r#"[{"path":"a"},{"path":"b"}]"#;
    assert_eq!(from_json_list::<Entry>(text, 2).unwrap()[1].path, "b");
    assert!(from_json_list::<Entry>(text, 1).is_err());
    assert!(from_json_list::<Entry>("[{}] x", 9).is_err());
    assert!(from_json_list::<Entry>("{}", 9).is_err());
}

#[test]
fn the_deepest_payload_fits_a_stack_of_the_agent() {
    // Without optimization it needs several times what it needs on a device, where the small stacks hold it.
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(126), "]".repeat(126));
    let thread = std::thread::Builder::new().stack_size(crate::thread::LARGE_STACK);
    let thread = thread.spawn(move || {
        assert!(read::<HistoryPut>(&deep).is_ok());
        assert!(read::<Command>(&deep).is_ok());
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn json_in_a_text_stays_a_text() {
    let inner = r#"{"$serde_json::private::RawValue":"[]"}"#;
    // What is refused is what serde_json does: were the name another one, this would be noticed here.
    let seen = serde_json::from_str::<Value>(inner).unwrap();
    assert_eq!(seen, serde_json::json!([]));
    let reason = refusal::<HistoryPut>(&format!("{{\"data\":{inner}}}"));
    assert_eq!(
        reason,
        "data: no field is called $serde_json::private::RawValue"
    );
    let xml = "<p><data><x:$serde_json::private::RawValue>[]</x:$serde_json::private::RawValue></data></p>";
    assert!(read::<HistoryPut>(xml).is_err());
}
