//! Lines of vendors, lines that are wrong, and any line at all.

use super::*;
use crate::dates;
use proptest::prelude::*;

/// 21 November 2026, 10:00 UTC.
const NOW: f64 = 1_795_255_200.0;

fn wrong(line: &str) -> Fault {
    parse(line).expect_err(line)
}

fn split(line: &str) -> (syslog::Prefix<'_>, Cef<'_>) {
    let (prefix, event) = syslog::split(line, NOW, 0).expect(line);
    (prefix, parse(event).expect(line))
}

/// Lines as vendors and readers of theirs publish them, the prefix included. After each: where it is from, and
/// vendor, severity, time, host, and some pairs.
#[test]
#[allow(clippy::type_complexity)]
fn vendors_lines_are_read() {
    let lines: &[(
        &str,
        &str,
        &str,
        Option<&str>,
        Option<&str>,
        &[(&str, &str)],
    )] = &[
        // ArcSight, Implementing CEF, "Header Information" and "Character Encoding".
        (
            r"Sep 19 08:26:10 host CEF:0|security|threatmanager|1.0|100|worm successfully stopped|10|src=10.0.0.1 dst=2.1.2.2 spt=1232",
            "security",
            "10",
            Some("2026-09-19T08:26:10Z"),
            Some("host"),
            &[("dst", "2.1.2.2"), ("spt", "1232")],
        ),
        (
            r"CEF:0|security|threatmanager|1.0|100|detected a \| in message|10|src=10.0.0.1 act=blocked a | dst=1.1.1.1",
            "security",
            "10",
            None,
            None,
            &[("act", "blocked a |"), ("dst", "1.1.1.1")],
        ),
        (
            r"CEF:0|security|threatmanager|1.0|100|detected a \\ in packet|10|src=10.0.0.1 act=blocked a \\ dst=1.1.1.1",
            "security",
            "10",
            None,
            None,
            &[("act", r"blocked a \")],
        ),
        (
            r"CEF:0|security|threatmanager|1.0|100|detected a = in message|10|src=10.0.0.1 act=blocked a \= dst=1.1.1.1",
            "security",
            "10",
            None,
            None,
            &[("act", "blocked a =")],
        ),
        (
            r"CEF:0|security|threatmanager|1.0|100|Detected a threat. No action needed.|10|src=10.0.0.1 msg=Detected a threat.\n No action needed.",
            "security",
            "10",
            None,
            None,
            &[("msg", "Detected a threat.\n No action needed.")],
        ),
        // docs.fortinet.com, FortiOS log message reference, "Traffic log support for CEF" (shortened).
        (
            "Feb 12 11:11:30 syslog-800c CEF:0|Fortinet|Fortigate|v5.6.0|00013|traffic:forward close|3|FTNTFGTlogid=0000000013 cat=traffic:forward deviceInboundInterface=port15 dst=192.168.70.184 cs5=10 cs5Label=Policy Id FTNTFGTapp=Wget.Like cn2=5 cn2Label=Packets Sent",
            "Fortinet",
            "3",
            Some("2027-02-12T11:11:30Z"),
            Some("syslog-800c"),
            &[
                ("cs5Label", "Policy Id"),
                ("cn2Label", "Packets Sent"),
                ("cs5", "10"),
            ],
        ),
        // community.fortinet.com, "FortiAnalyzer log forwarding CEF version" (shortened).
        (
            r#"Dec 08 17:00:55 Alza-kvm41 CEF:0|Fortinet|FortiGate-VM64|6.4.8,build1914 (GA)|0201009238|virus utm monitored|5|start=Dec 08 2022 17:00:55 ad.vd=root ad.tz=+0800 fname=test-fsa.exe tz="+0800""#,
            "Fortinet",
            "5",
            Some("2026-12-08T17:00:55Z"),
            Some("Alza-kvm41"),
            &[
                ("start", "Dec 08 2022 17:00:55"),
                ("ad.vd", "root"),
                ("tz", "\"+0800\""),
            ],
        ),
        // docs.vmware.com, Carbon Black App Control events guide: a backslash that nobody has escaped.
        (
            r"Sep 19 08:26:10 server3.mycorp.local CEF:0|VMware Carbon Black|App Control|8.1.0.899|801|Execution block (unapproved file)|5| dst=10.0.0.1 duser=NTAUTHORITY\SYSTEM msg=File 'itunessetup64.exe' has been blocked because it was unapproved.",
            "VMware Carbon Black",
            "5",
            Some("2026-09-19T08:26:10Z"),
            Some("server3.mycorp.local"),
            &[("dst", "10.0.0.1"), ("duser", r"NTAUTHORITY\SYSTEM")],
        ),
        // docs-cortex.paloaltonetworks.com, Cortex XDR, "Agent audit logs": `\/` as Fortinet has it too.
        (
            r"<182>1 2020-10-04T10:41:14.608731Z cortexxdr - - - - CEF:0|Palo Alto Networks|Cortex XDR Agent|Cortex XDR Agent 7.2.0.63060|Agent Audit Logs|Agent Service|9|dvchost=WORKGROUP shost=Test-Agent cs3Label=result cs3=N\/A msg=XDR service cyserver was stopped on Test-Agent tenantname=Test",
            "Palo Alto Networks",
            "9",
            Some("2020-10-04T10:41:14Z"),
            Some("cortexxdr"),
            &[("cs3", r"N\/A"), ("tenantname", "Test")],
        ),
        // bokamba.com/logforge/parse/palo-alto.
        (
            "CEF:0|Palo Alto Networks|PAN-OS|11.1|THREAT|url|5|rt=Jul 03 2026 14:22:15 src=192.0.2.55 dst=198.51.100.99 spt=52881 app=web-browsing act=block-url request=https://malware-cdn.example.net/payload.bin cat=malware",
            "Palo Alto Networks",
            "5",
            None,
            None,
            &[("rt", "Jul 03 2026 14:22:15"), ("cat", "malware")],
        ),
        // vector.dev, tests of parse_cef, Check Point's log exporter (shortened).
        (
            "CEF:0|Check Point|VPN-1 & FireWall-1|Check Point|Log|https|Unknown|act=Accept deviceDirection=0 rt=1543270652000 spt=49363 dpt=443 cs2Label=Rule Name layer_name=Network ifname=eth0 logid=0 loguid={0x5bfc70fc,0x1,0xfe65a8c0,0xc0000001} origin=192.168.101.100",
            "Check Point",
            "Unknown",
            None,
            None,
            &[
                ("cs2Label", "Rule Name"),
                ("layer_name", "Network"),
                ("loguid", "{0x5bfc70fc,0x1,0xfe65a8c0,0xc0000001}"),
            ],
        ),
        // IBM DSM editor's samples, Trend Micro Apex Central (shortened): Cisco's year behind the day.
        (
            r"<133>Feb 14 2022 05:15:47 135.181.193.106 CEF:0|Trend Micro|Apex Central|2019|WB:7|7|3|deviceExternalId=38 rt=Nov 15 2017 08:43:57 GMT+00:00 cntLabel=AggregatedCount cs1Label=SLF_PolicyName cs1=External User Policy request=http://www.violetsoft.net/counter/insert.php?dbserver\=db1&c_pcode\=25 shost=ABC-HOST-WKS12",
            "Trend Micro",
            "3",
            Some("2022-02-14T05:15:47Z"),
            Some("135.181.193.106"),
            &[
                ("cs1", "External User Policy"),
                (
                    "request",
                    "http://www.violetsoft.net/counter/insert.php?dbserver=db1&c_pcode=25",
                ),
            ],
        ),
        // splunk-connect-for-syslog, tests of Trend Micro Deep Security.
        (
            "<111> Nov  2 03:04:05 CEF:0|Trend Micro|Deep Security Manager|0.0.0|600|User Signed In|3|src=10.52.116.160 suser=admin target=admin msg=User signed in from 2001:db8::5",
            "Trend Micro",
            "3",
            Some("2026-11-02T03:04:05Z"),
            None,
            &[("msg", "User signed in from 2001:db8::5")],
        ),
        // splunk-connect-for-syslog, tests of Imperva (shortened).
        (
            "Nov 15 23:57:28 3.3.3.3 CEF:0|Imperva Inc.|SecureSphere|13.5.0.10_0|Custom|custom-policy-violation|High|act=block dst=1.1.1.1 duser=GeritaMija3s rt=Nov 15 2019 15:52:28 cat=Alert cs1=Suspicious File Access Attempt - 1 cs1Label=Policy cs2=WebCloud (simulation) cs2Label=ServerGroup",
            "Imperva Inc.",
            "High",
            Some("2026-11-15T23:57:28Z"),
            Some("3.3.3.3"),
            &[
                ("cs1", "Suspicious File Access Attempt - 1"),
                ("cs1Label", "Policy"),
            ],
        ),
        // What Suricata's Lua scripts for CEF write, by one that is public.
        (
            "CEF:0|OISF|Suricata|7.0.3|1:2210000:1|Modbus Communication|3| rt=11/21/2026-09:59:58.017312 act=alert proto=TCP src=192.0.2.7 spt=49152 dst=192.0.2.8 dpt= 502 msg=read coils",
            "OISF",
            "3",
            None,
            None,
            &[("dpt", " 502"), ("rt", "11/21/2026-09:59:58.017312")],
        ),
        // Cisco, as readers of theirs have it.
        (
            "CEF:0|Cisco|CyberVision|4.0|100|Alert|5|",
            "Cisco",
            "5",
            None,
            None,
            &[],
        ),
        // pan.dev, logs forwarded by Cortex data lake behind another syslog daemon's prefix.
        (
            "Mar 1 20:48:22 gke-standard xxx 4465 <14>1 2021-03-01T20:48:22.900Z host logforwarder - panwlogs - CEF:0|Palo Alto Networks|LF|2.0|CORRELATION|correlation|4|src=10.0.0.44 msg=Compromised host",
            "Palo Alto Networks",
            "4",
            Some("2027-03-01T20:48:22Z"),
            Some("gke-standard"),
            &[("msg", "Compromised host")],
        ),
    ];
    for (line, vendor, severity, time, host, pairs) in lines {
        let (prefix, event) = split(line);
        assert_eq!(
            (&*event.vendor, &*event.severity.to_string()),
            (*vendor, *severity),
            "{line}"
        );
        assert_eq!(prefix.time.map(dates::utc).as_deref(), *time, "{line}");
        assert_eq!(prefix.host, *host, "{line}");
        for (key, value) in *pairs {
            assert_eq!(event.get(key), Some(*value), "{line}");
        }
        // Written again it means the same.
        let written = event.line().unwrap();
        assert_eq!(parse(&written).unwrap(), event, "{line}");
    }
}

/// Public lines that break the rules, and where.
#[test]
fn vendors_lines_that_are_wrong_are_refused_with_the_place() {
    for (line, part) in [
        // Imperva Attack Analytics has a severity of its own.
        (
            "CEF:0|Imperva Inc|Attack Analytics|0|Illegal Resource Access|attack |MAJOR| msg=x",
            "at byte 69: the severity",
        ),
        // Check Point without escapes: is it a value of originsicname, or of CN?
        (
            "CEF:0|Check Point|VPN-1|Check Point|Log|https|Unknown|origin=1.1.1.1 originsicname=CN=DW",
            r"at byte 85: a = within a value is written \=",
        ),
        // A field is missing.
        (
            "CEF:0|Cisco|ASA|9.1|106023|Repeated Threat Malware|src=10.10.99.99 dst=10.0.0.1",
            "within the field 7 (severity)",
        ),
        (
            "CEF:0|Check Point|Smart-1|",
            "within the field 4 (device version)",
        ),
        ("CEF:0|a|b|c|d|e|5", "within the field 7 (severity)"),
    ] {
        let said = wrong(line).to_string();
        assert!(said.contains(part), "{line}: {said}");
    }
}

#[test]
fn what_breaks_a_rule_is_refused_with_the_place() {
    for (line, at, part) in [
        ("", 0, "begins with CEF:"),
        ("cef:0|a|b|c|d|e|5|", 0, "begins with CEF:"),
        ("CEF:2|a|b|c|d|e|5|", 4, "version"),
        ("CEF:00|a|b|c|d|e|5|", 4, "version"),
        ("CEF: 0|a|b|c|d|e|5|", 4, "version"),
        ("CEF:|a|b|c|d|e|5|", 4, "version"),
        ("CEF:0||b|c|d|e|5|", 6, "the vendor is empty"),
        ("CEF:0|a||c|d|e|5|", 8, "the product is empty"),
        ("CEF:0|a|b|c||e|5|", 12, "the signature is empty"),
        ("CEF:0|a|b|c|d||5|", 14, "the name is empty"),
        ("CEF:0|a|b|c|d|e||", 16, "severity"),
        ("CEF:0|a|b|c|d|e|11|", 16, "severity"),
        ("CEF:0|a|b|c|d|e|05|", 16, "severity"),
        ("CEF:0|a|b|c|d|e|-1|", 16, "severity"),
        ("CEF:0|a|b|c|d|e|high|", 16, "severity"),
        ("CEF:0|a|b|c|d|e|5 |", 16, "severity"),
        (r"CEF:0|a\n|b|c|d|e|5|", 7, "in the header a backslash"),
        (r"CEF:0|a\=|b|c|d|e|5|", 7, "in the header a backslash"),
        (r"CEF:0|a|b|c|d|e|5\", 17, "in the header a backslash"),
        ("CEF:0|a|b|c|d|e", 15, "within the field 6 (name)"),
        ("CEF:0|a|b|c|d|e|5|x", 18, "key=value"),
        ("CEF:0|a|b|c|d|e|5|x y=1", 18, "key=value"),
        ("CEF:0|a|b|c|d|e|5|=1", 18, "key=value"),
        ("CEF:0|a|b|c|d|e|5|k:l=1", 21, "key=value"),
        ("CEF:0|a|b|c|d|e|5|ü=1", 20, "key=value"),
        ("CEF:0|a|b|c|d|e|5|k=1 =2", 22, r"written \="),
        ("CEF:0|a|b|c|d|e|5|k=u?a=2", 23, r"written \="),
        ("CEF:0|a|b|c|d|e|5|k==", 20, r"written \="),
        ("CEF:0|a|b|c|d|e|5|k=1\nl=2", 21, "line end"),
        ("CEF:0|a|b|c|d\r|e|5|", 13, "line end"),
        ("CEF:0|a|b|c|d|e|5|k=\0", 20, "NUL"),
    ] {
        let fault = wrong(line);
        assert_eq!(fault.at, at, "{line:?}: {fault}");
        assert!(fault.what.contains(part), "{line:?}: {fault}");
    }
}

#[test]
fn an_extension_is_read_to_the_byte() {
    let pairs = |extension: &str| {
        let line = format!("CEF:1|a|b||d|e|Very-High|{extension}");
        let event = parse(&line).expect(extension);
        let pairs = event.extension.iter();
        pairs
            .map(|(k, v)| format!("{k}={v:?}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (extension, read) in [
        ("", ""),
        ("   ", ""),
        ("a=", r#"a="""#),
        ("a= b=", r#"a="" b="""#),
        ("  a=1", r#"a="1""#),
        // The last blank before a key parts them, the others are the value's.
        ("a=1   b=2 ", r#"a="1  " b="2 ""#),
        ("a= 1", r#"a=" 1""#),
        ("a=x y z b=2", r#"a="x y z" b="2""#),
        (r"a=\=\\\n\r\|\x\", r#"a="=\\\n\r\\|\\x\\""#),
        (r"a=x\=1 b\=2 c=3", r#"a="x=1 b=2" c="3""#),
        (r"a=x\ b=2", r#"a="x\\" b="2""#),
        ("a=1 a=2 ad.x[0]-y_z=3", r#"a="1" a="2" ad.x[0]-y_z="3""#),
        ("a=ü b=日本 c=🙂", r#"a="ü" b="日本" c="🙂""#),
        ("a=\t\u{7f}", "a=\"\\t\\u{7f}\""),
        (
            "cs1=x cs1Label=Rule Name",
            r#"cs1="x" cs1Label="Rule Name""#,
        ),
    ] {
        assert_eq!(pairs(extension), read, "{extension}");
    }
}

#[test]
fn severities_are_numbers_and_words() {
    for (text, number, word) in [
        ("0", Some(0), "Low"),
        ("3", Some(3), "Low"),
        ("4", Some(4), "Medium"),
        ("6", Some(6), "Medium"),
        ("7", Some(7), "High"),
        ("8", Some(8), "High"),
        ("9", Some(9), "Very-High"),
        ("10", Some(10), "Very-High"),
        ("Unknown", None, "Unknown"),
        ("Low", Some(3), "Low"),
        ("Medium", Some(6), "Medium"),
        ("High", Some(8), "High"),
        ("Very-High", Some(10), "Very-High"),
    ] {
        let severity = Severity::parse(text).expect(text);
        assert_eq!((severity.number(), severity.word()), (number, word));
        assert_eq!(severity.to_string(), text);
    }
}

#[test]
fn prefixes_give_time_and_host() {
    let event = "CEF:0|a|b|c|d|e|5|";
    let read = |prefix: &str, offset| {
        let line = format!("{prefix}{event}");
        let (prefix, rest) = syslog::split(&line, NOW, offset).map_err(|e| e.to_string())?;
        assert_eq!(rest, event);
        Ok::<_, String>((prefix.time.map(dates::utc), prefix.host.map(str::to_owned)))
    };
    for (prefix, time, host) in [
        ("", "", ""),
        ("<134>", "", ""),
        ("<134>fw01 ", "", ""),
        ("<0>Nov 21 09:00:00 fw01 ", "2026-11-21T09:00:00Z", "fw01"),
        (
            "Nov  1 09:00:00 fw01 daemon.info app[7]: ",
            "2026-11-01T09:00:00Z",
            "fw01",
        ),
        ("Nov 1 09:00:00 app: ", "2026-11-01T09:00:00Z", ""),
        ("Nov 1 09:00:00 app[7]: ", "2026-11-01T09:00:00Z", ""),
        (
            "Nov 1 09:00:00 2001:db8::1 ",
            "2026-11-01T09:00:00Z",
            "2001:db8::1",
        ),
        (
            "Nov 1 2025 09:00:00.250: fw01 ",
            "2025-11-01T09:00:00Z",
            "fw01",
        ),
        (
            "2026-11-21T09:00:00+01:00 fw01 app: ",
            "2026-11-21T08:00:00Z",
            "fw01",
        ),
        (
            "<191>1 2026-11-21T09:00:00.5Z fw01 app 1 ID [x@1 a=\"b\"] ",
            "2026-11-21T09:00:00Z",
            "fw01",
        ),
        (
            "<165>1 2026-11-21T09:00:00-08:00 - - - - - \u{FEFF}",
            "2026-11-21T17:00:00Z",
            "",
        ),
        (
            "1 2026-11-21T09:00:00Z fw01 app - - - ",
            "2026-11-21T09:00:00Z",
            "fw01",
        ),
        ("<165>1 - fw01 - - - - ", "", "fw01"),
        (
            "<134>1 Feb 14 19:04:54 test.hq.example ",
            "2027-02-14T19:04:54Z",
            "test.hq.example",
        ),
        ("\u{FEFF}", "", ""),
        // The year is the nearest.
        ("Dec 31 23:59:59 x ", "2026-12-31T23:59:59Z", "x"),
        ("May 23 00:00:00 x ", "2026-05-23T00:00:00Z", "x"),
        ("May 22 00:00:00 x ", "2027-05-22T00:00:00Z", "x"),
    ] {
        let read = read(prefix, 0).expect(prefix);
        let wanted = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        assert_eq!(read, (wanted(time), wanted(host)), "{prefix:?}");
    }
    // Local time, and a zone that is said.
    let local = read("Nov 21 09:00:00 x ", 3_600).unwrap();
    assert_eq!(local.0.as_deref(), Some("2026-11-21T08:00:00Z"));
    let local = read("2026-11-21T09:00:00Z x ", 3_600).unwrap();
    assert_eq!(local.0.as_deref(), Some("2026-11-21T09:00:00Z"));
    for prefix in [
        "x",
        "hello ",
        "<192>",
        "<>",
        "<1234>",
        "<x>Nov 1 09:00:00 ",
        "<134 ",
        "Nov 31 09:00:00 x ",
        "Nov 1 24:00:00 x ",
        "Nov 1 9:00:00 x ",
        "Nov 1 09:00 x ",
        "nov 1 09:00:00 x ",
        "Nov 111 09:00:00 x ",
        "2026-11-21T09:00:00 x ",
        "2026-13-21T09:00:00Z x ",
        "Feb 30 00:00:00 x ",
    ] {
        let said = read(prefix, 0).expect_err(prefix);
        assert!(said.starts_with("at byte 0: "), "{prefix}: {said}");
    }
    assert!(syslog::split("no event", NOW, 0).is_err());
    // A tag like the mark is none.
    let (_, rest) = syslog::split("<1>Nov 1 09:00:00 x CEF: CEF:0|a", NOW, 0).unwrap();
    assert_eq!(rest, "CEF:0|a");
}

#[test]
fn structured_data_is_no_event() {
    let begins = |line: &str| syslog::find(line).map(|at| line[at..].to_owned());
    let genuine = "CEF:0|genuine|b|c|d|e|5|";
    for data in [
        r#"[x user="CEF:0|forged|f|f|f|f|10|a=b"]"#,
        r#"[x@1 a="" user="\"] CEF:0|forged|f|f|f|f|10|\\"]"#,
        r#"[x a="]\]" b="ü CEF:1|forged"][y][z CEF:="0 CEF:0|forged|"]"#,
        "[CEF:0|forged]",
        "-",
    ] {
        for head in ["<34>1 2026-11-22T10:00:00Z h app - -", "1 - - - - -"] {
            let line = format!("{head} {data} {genuine}");
            assert_eq!(begins(&line).as_deref(), Some(genuine), "{line}");
            let (prefix, event) = syslog::split(&line, NOW, 0).unwrap();
            assert_eq!(
                (prefix.host.is_some(), event),
                (head.contains('h'), genuine)
            );
            let line = format!("{head} {data} no event");
            assert_eq!(begins(&line), None, "{line}");
            assert_eq!(begins(&format!("{head} {data}")), None, "{line}");
        }
    }
    // What is no RFC 5424 has the first.
    let first = r#"CEF:0|first|b|c|d|e|5|msg="] CEF:0|second|b|c|d|e|5|"#;
    for head in [
        "<34>1 2026-11-22T10:00:00Z h app - - [x user=",
        "<34>1 2026-11-22T10:00:00Z h app - - [x user\"",
        "<34>1 2026-11-22T10:00:00Z h app - - [",
        "<34>1 2026-11-22T10:00:00Z h app - - [x]",
        "<34>1 2026-11-22T10:00:00Z h app - - [x  user=\"",
        // Vendors leave words out.
        "<34>1 2026-11-22T10:00:00Z h ",
        "<34>1 2026-11-22T10:00:00Z h app ",
        "<34>Nov 22 10:00:00 h app - [x user=\"",
        "<34>2 2026-11-22T10:00:00Z h app - - [x user=\"",
        "<34>1 yesterday h app - - [x user=\"",
    ] {
        let line = format!("{head}{first}");
        assert_eq!(begins(&line).as_deref(), Some(first), "{line}");
    }
    assert_eq!(
        begins("<34>1 - h app - - [x y=\"CEF:0|a|\\").as_deref(),
        Some("CEF:0|a|\\")
    );
}

#[test]
fn the_year_is_guessed_over_new_year() {
    let at = |text: &str, now: &str| {
        let now = dates::parse(now, 0.0).unwrap();
        let line = format!("{text} x CEF:0|a");
        let (prefix, _) = syslog::split(&line, now, 0).unwrap();
        prefix.time.map(dates::utc).unwrap_or_default()
    };
    assert_eq!(
        at("Dec 31 23:59:59", "2027-01-01T00:00:05Z"),
        "2026-12-31T23:59:59Z"
    );
    assert_eq!(
        at("Jan  1 00:00:05", "2026-12-31T23:59:59Z"),
        "2027-01-01T00:00:05Z"
    );
    assert_eq!(
        at("Feb 29 12:00:00", "2028-03-01T00:00:00Z"),
        "2028-02-29T12:00:00Z"
    );
    assert_eq!(
        at("Feb 29 12:00:00", "2029-01-01T00:00:00Z"),
        "2028-02-29T12:00:00Z"
    );
    // None of the three nearest years has one.
    assert_eq!(
        at("Feb 29 12:00:00", "2026-11-22T00:00:00Z"),
        "2028-02-29T12:00:00Z"
    );
    assert_eq!(
        at("Feb 29 12:00:00", "2099-12-01T00:00:00Z"),
        "2096-02-29T12:00:00Z"
    );
    // A router that lives in 1970.
    assert_eq!(
        at("Jan  1 00:00:05", "1970-01-01T00:00:09Z"),
        "1970-01-01T00:00:05Z"
    );
}

#[test]
fn a_long_line_takes_one_pass() {
    // Quadratic, these would take minutes.
    for piece in ["a=1 ", r"\\", "=", " ", "a", r"\=", "CEF:", "|", "ü"] {
        let line = format!("CEF:0|a|b|c|d|e|5|k={}", piece.repeat(1 << 20));
        let _ = parse(&line);
        let _ = syslog::split(&line, NOW, 0);
        let _ = syslog::split(&piece.repeat(1 << 20), NOW, 0);
        let data = format!("1 - - - - - [x y=\"CEF:0{}", piece.repeat(1 << 20));
        let _ = syslog::split(&data, NOW, 0);
    }
}

fn events() -> impl Strategy<Value = Cef<'static>> {
    // Of what means something, and of anything.
    let header = || r"([a-z|\\= ]|[^\n\r\x00]){1,12}".prop_map(Cow::Owned);
    let value = || r"([a-z|\\=nr \n\r]|[^\x00]){0,12}".prop_map(Cow::Owned);
    let key = r"[a-zA-Z0-9._\[\]-]{1,6}".prop_map(Cow::Owned);
    let severity = "[0-9]|10|Unknown|Low|Medium|High|Very-High"
        .prop_map(|text| Severity::parse(&text).expect("a severity"));
    let fields = (
        header(),
        header(),
        r"[a-z|\\]{0,4}".prop_map(Cow::Owned),
        header(),
        header(),
    );
    (
        0..2_u8,
        fields,
        severity,
        prop::collection::vec((key, value()), 0..6),
    )
        .prop_map(
            |(version, (vendor, product, device_version, signature, name), severity, extension)| {
                Cef {
                    version,
                    vendor,
                    product,
                    device_version,
                    signature,
                    name,
                    severity,
                    extension,
                }
            },
        )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(event in events()) {
        let line = event.line().unwrap();
        prop_assert_eq!(&parse(&line).unwrap(), &event);
        // A canonical line stays as it is, also behind a prefix.
        prop_assert_eq!(parse(&line).unwrap().to_string(), line.clone());
        let prefixed = format!("<13>Nov 21 09:00:00 fw01 app: {line}");
        prop_assert_eq!(syslog::split(&prefixed, NOW, 0).unwrap().1, &line[..]);
    }

    #[test]
    fn no_line_makes_it_panic(line in r#"(<13>1 - - - - - \[x y=")?(CEF:[01]\||<13>|Nov 21 |\[x y="|[a-z0-9|\\= :\["\]]|\PC){0,40}"#) {
        let _ = syslog::split(&line, NOW, 0);
        let prefixed = format!("CEF:0|a|b|c|d|e|5|{line}");
        for line in [&line, &prefixed] {
            if let Ok(event) = parse(line) {
                let written = event.line().unwrap();
                prop_assert_eq!(&parse(&written).unwrap(), &event);
            }
        }
    }
}
