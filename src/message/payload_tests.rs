use super::*;

fn xml<T: DeserializeOwned>(text: &str) -> Result<T, PayloadError> {
    from_text(Some(text))
}

#[test]
fn an_xml_payload_reads_as_its_json_form() {
    let from_xml: Command = xml(
        "<command><argv>sh</argv><argv>-c</argv><argv> echo  a &amp; b </argv><env><A>1</A><B/></env>\
         <timeoutSeconds>1.5</timeoutSeconds><nice>-3</nice><memoryBytes>1000000</memoryBytes><output>collect</output></command>",
    )
    .unwrap();
    let from_json: Command = from_text(Some(
        r#"{"argv":["sh","-c"," echo  a & b "],"env":{"A":"1","B":""},"timeoutSeconds":1.5,"nice":-3,"memoryBytes":1000000,"output":"collect"}"#,
    ))
    .unwrap();
    assert_eq!(from_xml, from_json);
}

#[test]
fn an_xml_heartbeat_of_the_first_triton_is_read() {
    let beat: Heartbeat = xml(
        "<heartbeat>\n <uptime>81234</uptime>\n <systemLoad>0.25</systemLoad> <processorLoad>0.5</processorLoad><processorLoad>0</processorLoad>\
         <fileSystems><mount>/</mount><type>ext4</type><name>/dev/sda1</name><spaceTotal>10</spaceTotal><spaceUsed>4</spaceUsed><spaceAvailable>6</spaceAvailable></fileSystems>\
         <unknown><x>1</x></unknown></heartbeat>",
    )
    .unwrap();
    assert_eq!(beat.uptime, Some(81234.0));
    assert_eq!(beat.processor_load, Some(vec![0.5, 0.0]));
    assert_eq!(beat.file_systems.unwrap()[0].space_available, Some(6));
}

#[test]
fn xml_payloads_of_every_shape_are_read() {
    let output: Output = xml("<o><stream>stderr</stream><offset>7</offset><data>aGk=</data><encoding>base64</encoding></o>").unwrap();
    assert_eq!(
        (output.stream, output.offset, output.into_bytes().unwrap()),
        (Stream::Stderr, 7, b"hi".to_vec())
    );
    let result: JobResult = xml("<r><status>timed-out</status><signal>15</signal><tail><stdout><data>x</data></stdout></tail></r>").unwrap();
    assert_eq!(
        (
            result.status,
            result.signal,
            result.tail.stdout.data.as_str()
        ),
        (Status::TimedOut, Some(15), "x")
    );
    let error: Error = xml("<e><code>busy</code><message>later</message></e>").unwrap();
    assert_eq!(error.code, ErrorCode::Busy);
    let welcome: Welcome = xml("<w><name>n</name><attributes><site>attic</site></attributes><heartbeatSeconds>5</heartbeatSeconds></w>").unwrap();
    assert_eq!(
        (
            welcome.heartbeat_seconds,
            welcome.attributes["site"].as_str()
        ),
        (Some(5), "attic")
    );
    let hello: Hello = xml("<h><agent><version>1</version><protocol>1</protocol></agent><instance>i</instance><capabilities>command</capabilities></h>").unwrap();
    assert_eq!(
        (hello.instance.as_str(), hello.capabilities.len()),
        ("i", 1)
    );
}

#[test]
fn bad_payloads_are_refused_with_a_reason() {
    for text in [
        "{",
        "[]x",
        "{\"argv\":1}",
        "<a",
        "<a/><b/>",
        "<a/>text",
        "text<a/>",
        "<a x=1/>",
        "<!-- nothing -->",
        "<c><nice>high</nice></c>",
        "<c><nice>3000000000</nice></c>",
        "<c><nice>1.5</nice></c>",
        "<c><memoryBytes>-1</memoryBytes></c>",
        "<c><timeoutSeconds>NaN</timeoutSeconds></c>",
        "<c><output>loud</output></c>",
        "<c><shell>a</shell><shell>b</shell></c>",
        "<c><argv>a</argv><shell>b</shell><argv>c</argv></c>",
        "<c><shell><b>x</b></shell></c>",
        "<c><env>text</env></c>",
        "<c>text</c>",
        "<a></b>",
        "<a>&b;</a>",
        "<!doctype x><c><shell>x</shell></c>",
        "[[\"echo\"]]",
        "7",
        "<!DOCTYPE a [<!ENTITY b \"c\">]><a><argv>&b;</argv></a>",
    ] {
        let error = xml::<Command>(text).expect_err(text);
        assert!(
            error
                .to_string()
                .starts_with("the payload cannot be read: "),
            "{error}"
        );
    }
    assert!(from_text::<Cancel>(None).is_err());
    assert_eq!(from_text::<Command>(None).unwrap(), Command::default());
}

#[test]
fn deeply_nested_xml_is_refused_without_recursion() {
    let deep = |n: usize| format!("<c>{}{}</c>", "<x>".repeat(n), "</x>".repeat(n));
    assert_eq!(xml::<Command>(&deep(50)).unwrap(), Command::default());
    let error = xml::<Command>(&deep(200_000)).unwrap_err().to_string();
    assert!(error.contains("inside one another"), "{error}");
}

#[test]
fn xml_of_people_is_read() {
    let command: Command = xml(
        "<?xml version=\"1.0\"?>\n<!-- a --><c xmlns=\"urn:x\">\n <argv>a</argv><!-- b -->\n <argv/>\n <argv><![CDATA[<]]>&#x41;</argv>\n\
         <nice> 3 </nice><timeoutSeconds>\n1e1</timeoutSeconds><output> discard </output><cwd/><unknown a=\"1\"><deep>1</deep></unknown></c>\n<!-- c -->",
    )
    .unwrap();
    assert_eq!(command.argv.unwrap(), ["a", "", "<A"]);
    assert_eq!(
        (command.nice, command.timeout_seconds),
        (Some(3), Some(10.0))
    );
    assert_eq!(command.output, OutputMode::Discard);
    assert_eq!(command.cwd.as_deref(), Some(""));
    let put: HistoryPut = xml("<p><data>7</data><code> 201 </code></p>").unwrap();
    assert_eq!((put.data, put.code), (serde_json::json!("7"), Some(201)));
    let welcome: Welcome =
        xml("<w><deltas>true</deltas><acked>18446744073709551615</acked></w>").unwrap();
    assert_eq!((welcome.deltas, welcome.acked), (true, Some(u64::MAX)));
}

#[test]
fn unknown_error_codes_stay_as_they_are() {
    let error: Error = xml(r#"{"code":"unheard-of","message":"no key"}"#).unwrap();
    assert_eq!(error.code, ErrorCode::Other("unheard-of".into()));
    assert!(to_json(&error).contains("\"unheard-of\""));
}

#[test]
fn an_error_code_that_is_no_short_word_is_not_carried_on() {
    let read = |code: &str| {
        let text = serde_json::json!({"code": code, "message": "m"}).to_string();
        xml::<Error>(&text).unwrap().code
    };
    let long = "w".repeat(64);
    assert_eq!(read(&long), ErrorCode::Other(long.clone()));
    for none in [
        "",
        "Not Found",
        "a&b",
        &"&".repeat(1_000_000),
        &(long + "w"),
    ] {
        assert_eq!(read(none), ErrorCode::Invalid);
    }
}

#[test]
fn absent_values_are_not_sent() {
    assert_eq!(to_json(&Heartbeat::default()), "{}");
    assert_eq!(to_json(&Accepted::default()), "{}");
    assert_eq!(to_json(&Welcome::default()), "{}");
}

#[test]
fn harmless_differences_in_writing_are_read() {
    let welcome: Welcome = xml(
        r#"{"attributes":{"n":3,"b":true,"t":"x","z":null},"heartbeatSeconds":2.0,"deltas":null}"#,
    )
    .unwrap();
    assert_eq!(welcome.heartbeat_seconds, Some(2));
    assert_eq!(welcome.attributes["n"], "3");
    assert_eq!(welcome.attributes["b"], "true");
    assert!(!welcome.deltas);
    let welcome: Welcome = xml(r#"{"attributes":null,"heartbeatSeconds":-1}"#).unwrap();
    assert_eq!(welcome, Welcome::default());
    let welcome: Welcome = xml("<w><attributes><n>3</n><e/></attributes></w>").unwrap();
    assert_eq!(welcome.attributes["n"], "3");
    let command: Command = xml(r#"{"shell":"x","env":null,"output":null,"cwd":null}"#).unwrap();
    assert_eq!(command.shell.as_deref(), Some("x"));
    let command: Command = xml("<c><shell><![CDATA[echo '<!DOCTYPE html>']]></shell></c>").unwrap();
    assert_eq!(command.shell.as_deref(), Some("echo '<!DOCTYPE html>'"));
}
