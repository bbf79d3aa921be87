use super::*;
use std::os::unix::fs::symlink;

fn repository(state: &Path) -> Repository {
    let interpreters = BTreeMap::from([("sh".to_owned(), "/bin/sh".to_owned())]);
    Repository::open(state, interpreters, Arc::new(Attributes::open(state)))
}

/// A revision as a sync leaves it.
fn place(state: &Path, revision: &str, files: &[(&str, &str)]) {
    let folder = state.join("scripts/revisions").join(revision);
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let link = state.join("scripts/current");
    let _ = fs::remove_file(&link);
    symlink(Path::new("revisions").join(revision), link).unwrap();
}

#[test]
fn a_script_gets_its_arguments_as_words_and_knows_where_it_is() {
    let state = tempfile::tempdir().unwrap();
    place(state.path(), "r1", &[("net/up.sh", "echo")]);
    let repository = repository(state.path());
    assert_eq!(repository.revision().as_deref(), Some("r1"));
    let given = Command {
        env: BTreeMap::from([
            ("A".to_owned(), "b".to_owned()),
            ("TRITON_SCRIPT".to_owned(), "forged".to_owned()),
        ]),
        ..Command::default()
    };
    let args = vec!["$(reboot)".to_owned(), String::new(), "a b".to_owned()];
    let (command, revision) = repository.command("net/up.sh", args, given).unwrap();
    let folder = state.path().join("scripts/revisions/r1");
    let folder = folder.to_str().unwrap();
    let path = format!("{folder}/net/up.sh");
    assert_eq!(
        command.argv.unwrap(),
        ["/bin/sh", &path, "$(reboot)", "", "a b"]
    );
    assert_eq!(command.cwd.unwrap(), folder);
    assert_eq!(command.env["TRITON_SCRIPTS"], folder);
    assert_eq!(command.env["TRITON_SCRIPT"], "net/up.sh");
    assert_eq!(command.env["A"], "b");
    assert_eq!(revision.name, "r1");
    let (own, scripts) = list(state.path()).unwrap();
    assert_eq!(own.as_deref(), Some("r1"));
    assert_eq!(scripts, [("net/up.sh".to_owned(), 4)]);
}

#[test]
fn nothing_outside_of_the_revision_runs() {
    let state = tempfile::tempdir().unwrap();
    place(state.path(), "r1", &[("a.sh", ""), ("d/b.sh", "")]);
    let folder = state.path().join("scripts/revisions/r1");
    symlink("/bin/ls", folder.join("link.sh")).unwrap();
    symlink("/bin", folder.join("bin")).unwrap();
    let repository = repository(state.path());
    for (name, code) in [
        ("", ErrorCode::Invalid),
        ("/bin/ls", ErrorCode::Invalid),
        ("../r1/a.sh", ErrorCode::Invalid),
        ("d/../a.sh", ErrorCode::Invalid),
        ("./a.sh", ErrorCode::Invalid),
        ("d//b.sh", ErrorCode::Invalid),
        ("d/", ErrorCode::Invalid),
        (".hidden", ErrorCode::Invalid),
        ("a.sh\0", ErrorCode::Invalid),
        ("a.sh\n", ErrorCode::Invalid),
        ("a b", ErrorCode::Invalid),
        ("ä.sh", ErrorCode::Invalid),
        ("d", ErrorCode::Invalid),
        ("link.sh", ErrorCode::Refused),
        ("bin/ls", ErrorCode::Refused),
        ("b.sh", ErrorCode::NotFound),
        ("a.sh/b", ErrorCode::NotFound),
    ] {
        let error = repository.command(name, Vec::new(), Command::default());
        assert_eq!(error.unwrap_err().code, code, "{name:?}");
    }
    let long = "a/".repeat(200) + "a";
    let error = repository.command(&long, Vec::new(), Command::default());
    assert_eq!(error.unwrap_err().code, ErrorCode::Invalid);
    let shell = Command {
        shell: Some("x".to_owned()),
        ..Command::default()
    };
    let error = repository.command("a.sh", Vec::new(), shell);
    assert_eq!(error.unwrap_err().code, ErrorCode::Invalid);
}

#[test]
fn a_device_without_scripts_says_so_and_a_wrong_link_is_none() {
    let state = tempfile::tempdir().unwrap();
    let none = repository(state.path());
    assert_eq!(none.revision(), None);
    assert_eq!(list(state.path()).unwrap(), (None, Vec::new()));
    let error = none.command("a.sh", Vec::new(), Command::default());
    assert_eq!(error.unwrap_err().code, ErrorCode::NotFound);
    assert!(list(&state.path().join("nowhere")).is_err());
    place(state.path(), "r1", &[("a.sh", "")]);
    let link = state.path().join("scripts/current");
    for target in ["/etc", "revisions/../..", "revisions/none", "revisions"] {
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        assert_eq!(repository(state.path()).revision(), None, "{target}");
    }
}

#[test]
fn power_that_is_cut_while_a_revision_is_replaced_leaves_the_old_one() {
    let state = tempfile::tempdir().unwrap();
    place(state.path(), "r0", &[("a.sh", "0")]);
    place(state.path(), "r1", &[("a.sh", "one")]);
    let revisions = state.path().join("scripts/revisions");
    // A job held another; then r1 went out of the way, and the new one had not come.
    fs::rename(revisions.join("r0"), revisions.join(".old-9")).unwrap();
    fs::rename(revisions.join("r1"), revisions.join(".old-10")).unwrap();
    fs::create_dir(revisions.join(".new")).unwrap();
    assert_eq!(repository(state.path()).revision().as_deref(), Some("r1"));
    let text = fs::read_to_string(revisions.join("r1/a.sh")).unwrap();
    assert_eq!(text, "one");
    assert_eq!(fs::read_dir(&revisions).unwrap().count(), 1);
    // Where the new one has come, the old one goes.
    fs::create_dir(revisions.join(".old-1")).unwrap();
    assert_eq!(repository(state.path()).revision().as_deref(), Some("r1"));
    assert_eq!(fs::read_dir(&revisions).unwrap().count(), 1);
}
