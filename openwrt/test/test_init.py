"""The init script: from /etc/config/triton to a running agent."""

import os
import re
import shutil
import subprocess
import time
import unittest

from rootfs import FILES, OPENWRT, Router, wait_for

URL = "ws://127.0.0.1:9/"
PIN = "sha256//" + "A" * 43 + "="
SECRET = "the-identifier-that-nobody-may-see"

# Every option with a value that is not its default, and what the agent is to read.
FULL = {
    "enabled": "on",
    "url": ["wss://a.example.com:8787/{identifier}", "https://b.example.com"],
    "identifier": SECRET,
    "pin": [PIN, "00" * 32],
    "ca_file": "/etc/ssl/my ca.pem",
    "proxy": "http://user:word@proxy.lan:3128",
    "no_proxy": "a.lan, .b.lan",
    "heartbeat_seconds": "60",
    "log_level": "debug",
    "log_to": "stderr",
    "label": ["site=north", "a.b c=d=e"],
    "dns_seconds": "1",
    "tcp_seconds": "2",
    "proxy_seconds": "3",
    "tls_seconds": "4",
    "http_seconds": "5",
    "hello_seconds": "6",
    "pong_seconds": "7",
    "workers": "2",
    "queue": "3",
    "grace_seconds": "4",
    "timeout_seconds": "600",
    "collect_bytes": "8192",
    "job_nice": "10",
    "job_oom_score_adj": "300",
    "oom_score_adj": "-100",
    "state": "/root/state",
    "journal": "/root/journal",
    "journal_bytes": "131072",
    "journal_memory_bytes": "65536",
    "journal_sync": "no",
    "socket_group": "admins",
    "interpreter": ["rb=/usr/bin/ruby", "py=python3"],
    "policy_profile": "scripts-only",
    "policy_file": "/etc/policy.toml",
    "engine_pipe": "/var/run/engine.cmd",
    "reboot_command": ["reboot", "-d", "5 s"],
    "shutdown_command": ["halt"],
    "update_key": ["A" * 43 + "="],
    "update_confirm_seconds": "60",
    "poseidon_key": ["E" * 43 + "="],
    "plugin_off": ["engine"],
    "plugin_folder": "/root/plugins",
    "plugin_hello_seconds": "5",
    "plugin_patience_seconds": "20",
    "plugin_rate": "50",
    "window_bytes": "131072",
    "idle_seconds": "60",
    "manifest_entries": "1000",
    "reserve_bytes": "4096",
    "event_line_bytes": "2048",
    "event_batch_bytes": "4096",
    "event_rate": "5",
    "syslog_udp": "192.168.1.1:514",
    "syslog_unix": "/var/run/cef.sock",
    "event_file": ["/var/log/a.cef", "/var/log/b c.cef"],
    "relay_listen": "192.168.1.1:8118",
    "relay_connections": "8",
    "metrics_max": "10",
    "message_bytes": "65536",
    "output_bytes": "65537",
    "control_messages": "128",
    "local_clients": "3",
}
FULL_TOML = {
    "url": FULL["url"],
    "identifier": SECRET,
    "tls": {"pins": FULL["pin"], "ca_file": "/etc/ssl/my ca.pem"},
    "proxy": {"url": FULL["proxy"], "no_proxy": FULL["no_proxy"]},
    "heartbeat_seconds": 60,
    "log": "debug",
    "log_to": "stderr",
    "labels": {"site": "north", "a.b c": "d=e"},
    "connect": {
        "dns_seconds": 1,
        "tcp_seconds": 2,
        "proxy_seconds": 3,
        "tls_seconds": 4,
        "http_seconds": 5,
        "hello_seconds": 6,
        "pong_seconds": 7,
    },
    "jobs": {
        "workers": 2,
        "queue": 3,
        "grace_seconds": 4,
        "timeout_seconds": 600,
        "collect_bytes": 8192,
        "nice": 10,
        "oom_score_adj": 300,
    },
    "oom_score_adj": -100,
    "state": "/root/state",
    "journal": {"folder": "/root/journal", "bytes": 131072, "memory_bytes": 65536, "sync": False},
    "socket_group": "admins",
    "scripts": {"interpreters": {"rb": "/usr/bin/ruby", "py": "python3"}},
    "policy": {"profile": "scripts-only", "file": "/etc/policy.toml"},
    "engine": {"pipe": "/var/run/engine.cmd"},
    "system": {"reboot_command": ["reboot", "-d", "5 s"], "shutdown_command": ["halt"]},
    "update": {"keys": ["A" * 43 + "="], "confirm_seconds": 60},
    "trust": {"poseidon_keys": ["E" * 43 + "="]},
    "plugins": {"off": ["engine"], "folder": "/root/plugins", "hello_seconds": 5, "patience_seconds": 20, "rate": 50},
    "files": {"window_bytes": 131072, "idle_seconds": 60, "manifest_entries": 1000, "reserve_bytes": 4096},
    "events": {
        "line_bytes": 2048,
        "batch_bytes": 4096,
        "rate": 5,
        "syslog_udp": "192.168.1.1:514",
        "syslog_unix": "/var/run/cef.sock",
        "files": ["/var/log/a.cef", "/var/log/b c.cef"],
    },
    "relay": {"listen": "192.168.1.1:8118", "connections": 8},
    "metrics": {"max": 10},
    "limits": {"message_bytes": 65536, "output_bytes": 65537, "control_messages": 128, "local_clients": 3},
}
# What is written where nothing is configured but the URL.
BARE_TOML = {
    "url": [URL],
    "state": "/etc/triton",
    "journal": {"bytes": 262144},
    "log_to": "syslog",
}


def options_of_the_script():
    with open(os.path.join(FILES, "triton.init"), encoding="utf-8") as file:
        script = file.read()
    table = re.search(r"^OPTIONS='\n(.*?)^'", script, re.M | re.S).group(1)
    rows = [line.split() for line in table.splitlines()]
    others = re.search(r"^OTHERS='(.*)'", script, re.M).group(1).split()
    return rows, [other.split(":")[0] for other in others]


def remove(folder):
    """What the last call has left running may put a file there meanwhile."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} does not go")


class Init(unittest.TestCase):
    def setUp(self):
        self.router = Router().install()
        self.addCleanup(self.router.close)

    def check_config(self):
        code, out, err = self.router.run("/usr/bin/triton", "check-config", "--ca-file", "/dev/null")
        self.assertEqual((code, err), (0, ""), out)
        return out

    def test_as_shipped_nothing_starts_and_triggers_wait_for_a_change(self):
        for action in ("boot", "start", "reload", "restart"):
            actions, log = self.router.init(action)
            self.assertEqual(actions[-1], "nothing", action)
            self.assertIn("names no url", log)
            self.assertFalse(os.path.exists(self.router.path("procd/new/instance")))
        self.assertFalse(os.path.exists(self.router.path("tmp/run/triton")), "nothing is written")
        self.assertEqual(os.listdir(self.router.path("etc/triton")), ["triton.toml"])
        self.assertEqual(
            self.router.read("procd/new/triggers").splitlines(),
            [
                "config.change triton /etc/init.d/triton reload",
                "interface.*.up wan /etc/init.d/triton reload",
                "interface.*.up wan6 /etc/init.d/triton reload",
            ],
        )

    def test_disabled_and_without_a_configuration_it_does_nothing(self):
        self.router.configure(enabled="0", url=[URL])
        self.assertEqual(self.router.init("start"), (["nothing"], ""))
        os.remove(self.router.path("etc/config/triton"))
        self.assertEqual(self.router.init("start")[0], ["nothing"])
        self.router.write("etc/config/triton", "")
        self.assertEqual(self.router.init("start")[0], ["nothing"])

    def test_every_option_arrives(self):
        self.router.write("etc/policy.toml", "[policy.deny.x]\ntype = 'cancel'\n")
        self.router.configure(**FULL)
        actions, log = self.router.init("start")
        self.assertEqual((actions, log), (["start"], ""))
        self.assertEqual(self.router.toml(), FULL_TOML)
        out = self.check_config()
        self.assertIn("wss://a.example.com:8787", out)
        self.assertIn("/root/state", out)
        rows, others = options_of_the_script()
        self.assertEqual(
            sorted([row[0] for row in rows] + others),
            sorted([*FULL, "offline", "identifier_file", "interface"]),
            "FULL names every option",
        )

    def test_the_instance_never_gives_up_hides_the_secret_and_restarts_for_an_upgrade(self):
        self.router.write("etc/policy.toml", "[policy.deny.x]\ntype = 'cancel'\n")
        self.router.configure(**FULL)
        self.router.init("start")
        self.assertEqual(self.router.param("respawn"), ["3600", "5", "0"])
        self.assertEqual(self.router.param("file"), ["/usr/bin/triton", "/var/run/triton/fixed"])
        self.assertEqual(
            self.router.param("command"), ["/usr/bin/triton", "run", "--config", "/var/run/triton/triton.toml"]
        )
        # Who may read what: the settings are secret, and the group of the socket must get to it.
        self.assertEqual(self.router.mode("tmp/run/triton/triton.toml"), 0o600)
        self.assertEqual(self.router.mode("tmp/run/triton/fixed"), 0o600)
        self.assertEqual(self.router.mode("tmp/run/triton"), 0o750)
        self.assertEqual(os.stat(self.router.path("tmp/run/triton")).st_gid, 1000)
        self.assertEqual(self.router.mode("root/state"), 0o700)
        self.assertEqual(sorted(os.listdir(self.router.path("tmp/run/triton")))[:2], ["fixed", "triton.toml"])
        self.assertNotIn(SECRET, self.router.read("tmp/run/triton/fixed"))
        first = self.router.started()

        # An upgrade brings another program, and its postinst says 'start'.
        with open(self.router.path("usr/bin/triton.new"), "wb") as new, open(self.router.path("usr/bin/triton"), "rb") as old:
            shutil.copyfileobj(old, new)
            new.write(b"\0")
        os.chmod(self.router.path("usr/bin/triton.new"), 0o755)
        os.rename(self.router.path("usr/bin/triton.new"), self.router.path("usr/bin/triton"))
        self.assertEqual(self.router.init("start")[0], ["restart"])
        self.assertNotEqual(self.router.started(), first)

    def test_a_plain_configuration_gets_the_defaults_of_a_router(self):
        self.router.configure(url=[URL])
        self.assertEqual(self.router.init("start"), (["start"], ""))
        self.assertEqual(self.router.toml(), BARE_TOML)
        self.assertEqual(self.router.mode("tmp/run/triton"), 0o700)
        self.router.started()
        # The identity is on the flash, and the command finds the same configuration.
        self.assertLessEqual({"identifier", "instance"}, set(os.listdir(self.router.path("etc/triton"))))
        code, out, _ = self.router.run("/usr/bin/triton", "identifier")
        self.assertEqual((code, out), (0, self.router.read("etc/triton/identifier")))
        self.assertEqual(self.router.init("stop")[0], ["stop"])
        self.assertEqual(self.router.run("/usr/bin/triton", "status")[0], 1)

    def test_other_places_for_journal_state_and_identifier(self):
        self.router.write("root/key", "from-a-file\n")
        os.chmod(self.router.path("root/key"), 0o600)
        self.router.configure(url=URL, journal="tmpfs", identifier_file="/root/key", interface=["wwan", "lte; reboot"])
        self.assertEqual(self.router.init("start"), (["start"], ""))
        self.assertEqual(
            self.router.toml(),
            {**BARE_TOML, "identifier_file": "/root/key", "journal": {"folder": "/var/run/triton/journal", "bytes": 262144}},
        )
        self.router.started()
        self.assertEqual(self.router.mode("tmp/run/triton/journal"), 0o700)
        self.assertFalse(os.path.exists(self.router.path("etc/triton/journal")))
        self.assertIn("interface.*.up lte; reboot /etc/init.d/triton reload", self.router.read("procd/new/triggers"))
        self.router.configure(url=[URL], journal="somewhere", state="relative", socket_group="nobody-knows")
        actions, log = self.router.init("reload")
        self.assertEqual(actions, ["signal HUP", "restart"])
        self.assertEqual(self.router.toml(), BARE_TOML)
        for part in ("journal is none of", "state is no absolute path", "there is no group"):
            self.assertIn(part, log)

    def test_the_mode_of_a_folder_that_is_there_is_left_alone(self):
        os.chmod(self.router.path("tmp"), 0o1777)
        self.router.configure(url=[URL], state="/tmp")
        actions, log = self.router.init("start")
        self.assertEqual(actions, ["start"])
        self.assertIn("daemon.warn triton: the folder /tmp is open to others", log)
        self.assertEqual(self.router.mode("tmp"), 0o1777)
        self.router.started()
        self.router.configure(url=[URL], state="/root/a/b")
        self.assertEqual(self.router.init("restart"), (["stop", "start"], ""))
        self.assertEqual(self.router.mode("root/a/b"), 0o700)

    def test_without_a_url_it_runs_where_that_is_wanted(self):
        self.router.configure(offline="1")
        self.assertEqual(self.router.init("start"), (["start"], ""))
        self.router.started()

    def test_hostile_values_arrive_as_they_are_and_run_nothing(self):
        canary = "$(touch /canary)`touch /canary`; touch /canary #"
        values = [
            canary,
            "\"'\\\"'\\'\\\\",
            "'; touch /canary; '",
            "line\nanother = \"line\"\n[jobs]\nworkers = 9\n",
            "\n\n",
            "tab\tand bell\a and escape\033[2J and delete\177 and return\r",
            "Zürich 東京 🐟",
            "  spaces  ",
            "-n",
            "%s%n$HOME${PATH}$'x'*?[a-z]",
            "x" * 256,
        ]
        labels = {f"{n} {value.replace('=', '-')[:100]}": value for n, value in enumerate(values)}
        proxies = (canary + '"\\' * 100 + "\n") * 10
        self.router.configure(
            url=[URL],
            label=[f"{name}={value}" for name, value in labels.items()],
            no_proxy=proxies,
            interface=canary,
        )
        actions, log = self.router.init("start")
        self.assertEqual((actions, log), (["start"], ""))
        self.assertEqual(self.router.toml()["labels"], labels)
        self.assertEqual(self.router.toml()["proxy"]["no_proxy"], proxies)
        self.check_config()
        self.router.started()
        self.assertFalse(os.path.exists(self.router.path("canary")))

        # In options that are no text, as secrets, and where things are named.
        self.router.configure(
            **{name: canary for name in FULL if name != "url"},
            url=[URL, canary],
            offline=canary,
            identifier_file=canary,
        )
        actions, log = self.router.init("restart")
        self.assertEqual(actions, ["stop", "start"])
        self.assertEqual(self.router.toml()["labels"], labels, "the last good file stays")
        self.assertFalse(os.path.exists(self.router.path("canary")))
        # The agent is just putting its socket there.
        shutil.rmtree(self.router.path("tmp/run/triton"), ignore_errors=True)
        actions, log = self.router.init("restart")
        self.assertEqual(self.router.toml()["labels"], labels, "and after a power cut, too")
        # The agent is just putting its socket there.
        shutil.rmtree(self.router.path("tmp/run/triton"), ignore_errors=True)
        os.remove(self.router.path("etc/triton/last-good.toml"))
        actions, log = self.router.init("restart")
        self.assertEqual(self.router.toml().get("url"), None, "pins were wanted, and none is right")
        self.assertEqual(self.router.toml()["state"], "/etc/triton")
        self.router.started()
        self.assertFalse(os.path.exists(self.router.path("canary")))

    def test_values_that_are_too_long_or_no_labels_are_left_out(self):
        self.router.configure(url=[URL], no_proxy="x" * 5000, label=["no sign", "=v", "n=", "ok=1"])
        actions, log = self.router.init("start")
        self.assertEqual(actions, ["start"])
        self.assertEqual(self.router.toml(), {**BARE_TOML, "labels": {"ok": "1"}})
        self.assertIn("no_proxy is longer than 4096 bytes", log)
        self.assertEqual(log.count("a label is no NAME=VALUE"), 3)

    def test_wrong_values_fall_back_to_defaults_one_by_one(self):
        self.router.configure(
            url=[URL],
            identifier=SECRET,
            enabled="maybe",
            heartbeat_seconds="0",
            workers="many",
            queue="0x10",
            grace_seconds="7; touch /canary",
            job_nice="-5",
            oom_score_adj="-5",
            journal_sync="perhaps",
            journal_bytes="1",
            timeout_seconds=" 9",
            log_level="loud",
            label=["good=1", "long=" + "x" * 300, "good=2"],
        )
        actions, log = self.router.init("start")
        self.assertEqual(actions, ["start"])
        toml = self.router.toml()
        self.assertEqual(
            toml,
            {
                "url": [URL],
                "identifier": SECRET,
                "state": "/etc/triton",
                "log_to": "syslog",
                "journal": {"bytes": 262144},
                "labels": {"good": "1"},
                "oom_score_adj": -5,
            },
        )
        for part in (
            "enabled is neither 0 nor 1",
            "workers is no whole number",
            "job_nice is no whole number",
            "queue is no whole number",
            "grace_seconds is no whole number",
            "journal_sync is neither 0 nor 1",
            "a whole number from 1 to 86400",
            "does not take heartbeat_seconds: ",
            "does not take log: ",
            "error, warn, info",
            "does not take journal.bytes",
            "does not take labels.\"long\"",
            "does not take labels.\"good\": duplicate key",
        ):
            self.assertIn(part, log)
        self.assertNotIn(SECRET, log)
        self.assertNotIn("many", log, "values are not repeated")
        self.assertTrue(all(line.startswith("daemon.err triton: ") for line in log.splitlines()), log)
        self.router.started()

    def test_a_mistake_in_the_way_to_poseidon_leaves_a_running_agent_as_it_is(self):
        self.router.configure(url=[URL], heartbeat_seconds="20")
        self.router.init("start")
        pid = self.router.started()
        for wrong in (
            {"url": ["htps://typo"]},
            {"url": [URL], "pin": ["sha256//typo"]},
            {"url": [URL], "proxy": "socks5://x"},
            {"url": [URL], "identifier": "two words"},
            {"url": [URL], "identifier_file": "/nonexistent"},
            {"url": [URL, "ws://a/" + "x" * 5000]},
            {"url": ["ws://a/" + "x" * 5000]},
            {"url": [URL], "ca_file": "/" + "x" * 5000},
            {"url": [URL], "pin": ["x" * 5000]},
        ):
            with self.subTest(wrong):
                self.router.configure(heartbeat_seconds="30", **wrong)
                actions, log = self.router.init("reload")
                self.assertEqual(actions, ["signal HUP", "unchanged"])
                self.assertEqual(self.router.code, 1, "a job that did this fails")
                self.assertEqual(self.router.toml(), {**BARE_TOML, "heartbeat_seconds": 20})
                self.assertIn("all settings stay as they were", log)
                self.assertNotIn("two words", log)
        self.assertEqual(self.router.started(), pid)
        # A mistake elsewhere is said, and the rest is in force.
        self.router.configure(url=[URL], heartbeat_seconds="20", dns_seconds="many")
        self.assertIn("dns_seconds is no whole number", self.router.init("reload")[1])
        self.assertEqual(self.router.code, 0)

    def test_a_wrong_policy_never_opens_the_device(self):
        good = "[policy.deny.x]\ntype = 'command'\n"
        closed = {**BARE_TOML, "policy": {"profile": "read-only"}}
        self.router.write("etc/policy.toml", good)
        self.router.configure(url=[URL], policy_file="/etc/policy.toml")
        self.router.init("start")
        right = {**BARE_TOML, "policy": {"file": "/etc/policy.toml"}}
        self.assertEqual(self.router.toml(), right)
        wrongs = (
            {"policy_profile": "open sesame"},
            {"policy_profile": "x" * 5000},
            {"policy_file": "/etc/nothing.toml"},
            {"policy_file": "/etc/policy.toml", "policy_profile": "closed"},
        )
        for wrong in wrongs:
            with self.subTest(wrong):
                self.router.configure(url=[URL], **wrong)
                actions, log = self.router.init("reload")
                self.assertEqual((actions, self.router.code), (["signal HUP", "unchanged"], 1), log)
                self.assertIn("the policy is wrong, so all settings stay as they were", log)
                self.assertEqual(self.router.toml(), right)
                # At a boot those from before the mistake.
                self.power_cut()
                self.router.init("boot")
                self.assertEqual(self.router.toml(), right)
                # Without them, or with some from before there was a policy, the narrowest.
                last = self.router.read("etc/triton/last-good.toml")
                for kept in (None, "".join(line for line in last.splitlines(True) if "policy" not in line)):
                    self.power_cut()
                    if kept is None:
                        os.remove(self.router.path("etc/triton/last-good.toml"))
                    else:
                        self.router.write("etc/triton/last-good.toml", kept)
                    self.router.init("boot")
                    self.assertEqual(self.router.toml(), closed)
                self.router.configure(url=[URL], policy_file="/etc/policy.toml")
                self.router.init("reload")
                self.assertEqual(self.router.toml(), right)

    def test_a_file_that_uci_cannot_read_does_not_stop_a_running_agent(self):
        self.router.configure(url=[URL])
        self.router.init("start")
        pid = self.router.started()
        self.router.write("etc/config/triton", "config triton 'main'\n\toption enabled '1'\n\tlist url 'ws://x\n")
        actions, log = self.router.init("reload")
        self.assertEqual(actions, ["signal HUP", "unchanged"])
        self.assertIn("/etc/config/triton cannot be read", log)
        self.assertEqual(self.router.code, 1)
        self.assertEqual(self.router.toml(), BARE_TOML)
        self.assertEqual(self.router.started(), pid)
        # After a power cut it goes on with the last settings that were right.
        self.power_cut()
        actions, log = self.router.init("boot")
        self.assertEqual((actions, self.router.toml()), (["start"], BARE_TOML))
        self.assertIn("daemon.err triton: the agent goes with the last settings that were right", log)
        self.assertEqual(self.router.mode("tmp/run/triton"), 0o700)
        self.router.started()
        # Without them there is nothing to go on with; the triggers wait for a better file.
        self.power_cut()
        os.remove(self.router.path("etc/triton/last-good.toml"))
        self.assertEqual(self.router.init("boot")[0], ["nothing"])
        self.assertIn("config.change triton", self.router.read("procd/new/triggers"))

    def power_cut(self):
        """What is in memory is gone."""
        self.router.init("stop")
        remove(self.router.path("tmp/run/triton"))

    def test_a_mistake_from_afar_and_then_a_power_cut(self):
        self.router.configure(url=[URL], identifier=SECRET, heartbeat_seconds="20", workers="2")
        self.router.init("start")
        kept = self.router.path("etc/triton/last-good.toml")
        good = {**BARE_TOML, "identifier": SECRET, "heartbeat_seconds": 20, "jobs": {"workers": 2}}
        self.assertEqual(self.router.mode("etc/triton/last-good.toml"), 0o600)
        self.assertEqual(self.router.read("etc/triton/last-good.toml"), self.router.read("tmp/run/triton/triton.toml"))
        fixed = self.router.read("tmp/run/triton/fixed")
        self.assertIn("jobs.workers", fixed)
        self.router.started()
        # The flash is written where something changes, and only then.
        before = os.stat(kept)
        self.router.init("reload")
        self.assertEqual((os.stat(kept).st_ino, os.stat(kept).st_mtime_ns), (before.st_ino, before.st_mtime_ns))
        for wrong in ({"url": "htps://typo"}, {"url": "ws://a/" + "x" * 5000}, {"url": URL, "pin": "sha256//typo"}):
            with self.subTest(wrong):
                self.router.configure(heartbeat_seconds="30", **wrong)
                self.router.init("reload")
                self.power_cut()
                actions, log = self.router.init("boot")
                self.assertEqual((actions, self.router.toml()), (["start"], good))
                self.assertEqual(self.router.read("tmp/run/triton/fixed"), fixed)
                self.assertIn("daemon.err triton: the agent goes with the last settings that were right", log)
                self.router.started()
                self.assertEqual(self.router.init("reload")[0], ["signal HUP", "unchanged"])
        # One that this agent does not take is no help.
        self.power_cut()
        self.router.write("etc/triton/last-good.toml", "url = 1\n")
        log = self.router.init("boot")[1]
        self.assertIn("last-good.toml cannot be used either", log)
        self.assertNotIn("url", self.router.toml())
        # What is right again is kept again, and what is switched off leaves nothing.
        self.router.configure(url=[URL])
        self.router.init("reload")
        self.assertEqual(self.router.read("etc/triton/last-good.toml"), self.router.read("tmp/run/triton/triton.toml"))
        self.router.configure(url=[URL], enabled="0")
        self.router.init("reload")
        self.assertIn("triton.toml", os.listdir(self.router.path("etc/triton")))
        self.assertFalse(os.path.exists(kept))

    def test_the_same_mistake_at_boot_does_not_keep_the_agent_from_running(self):
        self.router.configure(url=["htps://typo", URL], proxy="socks5://x")
        self.assertEqual(self.router.init("boot")[0], ["start"])
        self.assertEqual(self.router.toml(), BARE_TOML, "the right one of two stays")
        self.router.started()

    def test_less_trust_than_configured_means_no_connection(self):
        self.router.configure(url=[URL], pin=["sha256//typo"])
        actions, log = self.router.init("boot")
        self.assertEqual(actions, ["start"])
        self.assertNotIn("url", self.router.toml())
        self.assertIn("the agent goes without", log)
        self.router.started()
        for options in (
            {"pin": "x" * 5000},
            {"pin": ["sha256//typo", "x" * 5000]},
            {"ca_file": os.fsdecode(b"/ca\xff.pem")},
            {"ca_file": os.fsdecode(b"/ca\xff.pem"), "pin": [PIN]},
        ):
            remove(self.router.path("tmp/run/triton"))
            self.router.configure(url=[URL], **options)
            self.router.init("restart")
            self.assertNotIn("url", self.router.toml(), options)
        remove(self.router.path("tmp/run/triton"))
        self.router.configure(url=[URL], ca_file="/" + "x" * 5000)
        self.router.init("restart")
        self.assertEqual(self.router.toml()["tls"], {"ca_file": "too long"}, "a file that is not there: no connection")
        remove(self.router.path("tmp/run/triton"))
        self.router.configure(url=[URL], pin=["sha256//typo", PIN])
        self.router.init("restart")
        self.assertEqual(self.router.toml(), {**BARE_TOML, "tls": {"pins": [PIN]}}, "the right one of two stays")

    def check_config_fails(self, ends, calls):
        """From now on some calls of check-config, counted from 1, end in another way than with an answer."""
        real = self.router.path("usr/bin/triton.real")
        if not os.path.exists(real):
            os.rename(self.router.path("usr/bin/triton"), real)
        self.router.write("calls", "")
        self.router.write(
            "usr/bin/triton",
            "#!/bin/sh\nif [ \"$1\" = check-config ]; then echo x >>/calls\n"
            f"case \"$(wc -l </calls)\" in {calls}) {ends} ;; esac; fi\nexec /usr/bin/triton.real \"$@\"\n",
        )
        os.chmod(self.router.path("usr/bin/triton"), 0o755)

    def test_a_check_without_an_answer_refuses_nothing(self):
        """As when the memory is full at boot and the check is killed."""
        full = {**BARE_TOML, "identifier": SECRET}
        for ends in ("kill -9 $$", "exit 127", "exit 126", "exit 2"):
            with self.subTest(ends):
                self.check_config_fails(ends, "*")
                self.router.configure(url=[URL], identifier=SECRET)
                actions, log = self.router.init("boot", quiet=False)
                self.assertEqual((actions, self.router.toml()), (["start"], full))
                self.assertIn("cannot be checked: /usr/bin/triton check-config ends with exit code", log)
                self.router.started()
                # What is in force stays, since a mistake in the new settings would not be seen.
                self.router.configure(url=["htps://typo"])
                log = self.router.init("reload", quiet=False)[1]
                self.assertIn("all settings stay as they were", log)
                self.assertEqual(self.router.toml(), full)
                self.router.init("stop")
                remove(self.router.path("tmp/run/triton"))
        # Killed once, in the midst of looking for the wrong item: only that one is left out.
        self.router.configure(url=[URL], identifier=SECRET, heartbeat_seconds="0", pin=[PIN])
        for killed in range(3, 10):
            with self.subTest(killed=killed):
                self.check_config_fails("kill -9 $$", killed)
                actions, log = self.router.init("boot", quiet=False)
                toml = self.router.toml()
                toml.pop("heartbeat_seconds", None)
                self.assertEqual((actions, toml), (["start"], {**full, "tls": {"pins": [PIN]}}))
                self.assertIn("cannot be checked and counts as right", log)
                self.router.init("stop")
                remove(self.router.path("tmp/run/triton"))

    def test_an_authority_file_that_comes_later_is_waited_for(self):
        self.router.configure(url=["wss://127.0.0.1:9"], ca_file="/mnt/not-yet.pem")
        self.assertEqual(self.router.init("start"), (["start"], ""))
        self.assertEqual(self.router.toml()["tls"], {"ca_file": "/mnt/not-yet.pem"})
        self.router.started()

    def test_bytes_that_are_no_text_are_left_out(self):
        self.router.configure(url=[URL], label=["good=1", os.fsdecode(b"bad=\xff\xfe")])
        actions, log = self.router.init("start")
        self.assertEqual(actions, ["start"])
        self.assertEqual(self.router.toml(), {**BARE_TOML, "labels": {"good": "1"}})
        self.assertIn('does not take labels."bad"', log)

    def test_a_reload_signals_for_the_link_and_restarts_for_the_rest(self):
        options = {"url": [URL], "log_to": "stderr"}
        self.router.configure(**options)
        self.router.init("start")
        pid = self.router.started()
        read_anew = lambda: self.router.agent_log().count("configuration read anew")
        # Nothing changed, as when the wan comes up: the agent tries to connect at once.
        self.assertEqual(self.router.init("reload"), (["signal HUP", "unchanged"], ""))
        wait_for("the first reload", lambda: read_anew() == 1)
        for count, (name, value) in enumerate(
            {
                "label": ["site=x"],
                "heartbeat_seconds": "33",
                "url": ["ws://127.0.0.1:8/"],
                "identifier": SECRET,
                "log_level": "debug",
                "proxy": "none",
                "dns_seconds": "3",
                "pin": [PIN],
                "log_to": "syslog",
            }.items()
        ):
            options[name] = value
            self.router.configure(**options)
            self.assertEqual(self.router.init("reload"), (["signal HUP", "unchanged"], ""), name)
            wait_for("the reload for " + name, lambda: read_anew() == count + 2)
        self.assertEqual(self.router.started(), pid, "no job was ended by any of this")
        for name, value in {"workers": "1", "journal": "tmpfs", "message_bytes": "65536", "socket_group": "admins"}.items():
            options[name] = value
            self.router.configure(**options)
            self.assertEqual(self.router.init("reload"), (["signal HUP", "restart"], ""), name)
            self.assertNotEqual(self.router.started(), pid)
            pid = self.router.pid()
        # One that does not listen yet would die of the signal.
        os.remove(self.router.path("tmp/run/triton/triton.sock"))
        self.assertEqual(self.router.init("reload"), (["unchanged"], ""))
        self.router.configure(**{**options, "enabled": "0"})
        self.assertEqual(self.router.init("reload")[0], ["stop"])

    def test_a_job_of_the_agent_may_reload_it(self):
        self.router.configure(url=[URL])
        self.router.init("start")
        self.router.started()
        # The variables of a job would have the last word in check-config.
        self.router.configure(url=["htps://typo"])
        environment = {"TRITON_URL": URL, "TRITON_CONFIG": "/nonexistent", "TRITON_SOCKET": "/x", "TRITON_LOG": "loud"}
        log = self.router.init("reload", env=environment)[1]
        self.assertIn("does not take url", log)
        self.router.configure(url=[URL], label=["a=b"])
        self.assertEqual(self.router.init("reload", env=environment), (["signal HUP", "unchanged"], ""))

    def test_a_full_memory_leaves_everything_as_it_was(self):
        self.router.configure(url=[URL])
        self.router.init("start")
        pid = self.router.started()
        before = self.router.read("tmp/run/triton/triton.toml")
        run = self.router.path("tmp/run/triton")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", run], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", run], check=True)
        for name in ("triton.toml", "fixed"):
            self.router.write("tmp/run/triton/" + name, before if name == "triton.toml" else "")
        self.router.configure(url=[URL], label=["a=b"])
        actions, log = self.router.init("reload", quiet=False)
        self.assertEqual(log, "daemon.err triton: cannot write to /var/run/triton; is the memory full?\n")
        self.assertEqual(self.router.read("tmp/run/triton/triton.toml"), before)
        self.assertEqual(self.router.pid() is not None, True, pid)

    def test_procd_is_told_nothing_that_is_in_the_log(self):
        """At boot and for triggers it is procd that calls: here a shell that is process 1 of its namespace."""
        shell = f"chroot {self.router.root} /bin/busybox ash /etc/rc.common /etc/init.d/triton boot; :"
        done = subprocess.run(["unshare", "--pid", "--fork", "sh", "-c", shell], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertIn("names no url", self.router.read("procd/log"))

    def test_a_caller_that_reads_no_more_changes_nothing(self):
        self.router.configure(url=[URL], workers="many", queue="many")
        read, write = os.pipe()
        os.close(read)
        shell = ["chroot", self.router.root, "/bin/busybox", "ash", "/etc/rc.common", "/etc/init.d/triton", "start"]
        done = subprocess.run(shell, stderr=write, timeout=60)
        os.close(write)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(self.router.toml(), BARE_TOML)
        self.router.started()

    def test_validation_names_every_option_once(self):
        self.router.init("start")
        named = [line.split("=")[0] for line in self.router.read("procd/new/validate").splitlines()]
        rows, others = options_of_the_script()
        self.assertEqual(named, ["package", "type", *others, *[row[0] for row in rows]])


class Documents(unittest.TestCase):
    def test_the_readme_has_every_option_and_uci_every_setting_of_the_agent(self):
        rows, others = options_of_the_script()
        with open(os.path.join(OPENWRT, "README.md"), encoding="utf-8") as file:
            documented = re.findall(r"^\| `(\w+)` \|", file.read(), re.M)
        self.assertEqual(sorted(documented), sorted([*others, *[row[0] for row in rows]]))
        with open(os.path.join(OPENWRT, "..", "README.md"), encoding="utf-8") as file:
            table = file.read().split("| key | default |", 1)[1].split("\n\n", 1)[0]
        settings = []
        for cell in re.findall(r"^\| (`.*?) \|", table, re.M):
            names = re.findall(r"`([\w.]+)`", cell)
            settings.append(names[0])
            # `connect.dns_seconds`, `tcp_`, ... `pong_seconds`
            prefix = names[0].rsplit(".", 1)[0] + "." if "." in names[0] else ""
            settings += [prefix + name + ("seconds" if name.endswith("_") else "") for name in names[1:]]
        known = [row[2] for row in rows]
        # Set by the init script itself, or fixed by it.
        # Entries of a schedule come from Poseidon: openwrt/README.md says so.
        # Rules of the policy stand in the file of policy_file.
        own = ["state", "journal.folder", "socket", "socket_group", "schedule", "policy.allow", "policy.deny"]
        self.assertEqual([s for s in settings if s not in known + own], [], "settings without an option of UCI")

    def test_the_shipped_configuration_names_known_options(self):
        rows, others = options_of_the_script()
        with open(os.path.join(FILES, "triton.config"), encoding="utf-8") as file:
            named = re.findall(r"^#?\t(?:option|list) (\w+) ", file.read(), re.M)
        self.assertGreater(len(named), 8)
        self.assertEqual([name for name in named if name not in others + [row[0] for row in rows]], [])


if __name__ == "__main__":
    unittest.main()
