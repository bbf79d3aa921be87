"""rpcd's plugin, with the real agent behind it."""

import json
import os
import unittest

from rootfs import FILES, Router

PLUGIN = "/usr/libexec/rpcd/triton"


class Plugin(unittest.TestCase):
    def setUp(self):
        self.router = Router().install()
        self.addCleanup(self.router.close)

    def call(self, *words, stdin=b"{}"):
        """As rpcd calls it: no line end behind the arguments; the answer has to be one object."""
        code, out, err = self.router.run("/bin/busybox", "ash", PLUGIN, *words, stdin=stdin)
        self.assertEqual((code, err), (0, ""))
        answer = json.loads(out)
        self.assertIsInstance(answer, dict)
        return answer

    def test_list_is_what_the_access_list_grants(self):
        methods = self.call("list")
        self.assertEqual(sorted(methods), ["doctor", "history", "status"])
        self.assertEqual(methods["history"], {"limit": 32, "since": "", "token": ""})
        with open(os.path.join(FILES, "triton.acl.json"), encoding="utf-8") as file:
            granted = json.load(file)["triton"]["read"]["ubus"]["triton"]
        self.assertEqual(sorted(granted), sorted(methods))

    def test_without_an_agent_the_error_is_an_answer(self):
        self.router.configure()
        self.router.init("stop")
        for method in ("status", "history"):
            answer = self.call("call", method)
            self.assertEqual(list(answer), ["error"])
            self.assertIn("triton.sock", answer["error"])
        doctor = self.call("call", "doctor")
        self.assertIn("daemon", doctor["report"])
        self.assertIn("error", self.call("call", "unknown"))
        self.assertEqual(self.router.run("/bin/busybox", "ash", PLUGIN)[0], 1)
        os.rename(self.router.path("usr/bin/triton"), self.router.path("usr/bin/gone"))
        self.addCleanup(os.rename, self.router.path("usr/bin/gone"), self.router.path("usr/bin/triton"))
        self.assertIn("not found", self.call("call", "status")["error"])

    def test_with_an_agent(self):
        self.router.configure(offline="1")
        self.router.init("start")
        pid = self.router.started()
        status = self.call("call", "status")
        self.assertEqual(status["pid"], pid)
        self.assertEqual(self.call("call", "history", stdin=b""), {"records": []})
        for value in ("one", 'a "quoted"\nline', "three"):
            self.assertEqual(self.router.run("/usr/bin/triton", "put", "--token", "t", value)[0], 0)
        self.assertEqual(self.router.run("/usr/bin/triton", "put", "other")[0], 0)
        records = self.call("call", "history", stdin=b'{"token":"t"}')["records"]
        self.assertEqual([record["data"] for record in records], ["one", 'a "quoted"\nline', "three"])
        self.assertEqual(len(self.call("call", "history", stdin=b'{"limit":2,"since":"1h"}')["records"]), 2)
        for wrong, part in (
            (b'{"limit":5000}', "from 1 to 1000"),
            (b'{"since":"$(touch /canary)"}', "--since takes"),
            (b'{"token":"--config"}', None),
        ):
            answer = self.call("call", "history", stdin=wrong)
            if part:
                self.assertIn(part, answer["error"])
            else:
                self.assertEqual(answer, {"records": []})
        self.assertFalse(os.path.exists(self.router.path("canary")))
        doctor = self.call("call", "doctor")
        self.assertIs(doctor["good"], True, doctor["report"])
        self.assertIn(f"process {pid}", doctor["report"])
        self.assertEqual([name for name in os.listdir(self.router.path("tmp")) if name.startswith("triton.")], [])

    def test_an_answer_that_does_not_fit_ubus_is_an_error(self):
        self.router.configure(offline="1", journal_bytes="4194304")
        self.router.init("restart")
        self.router.started()
        for _ in range(10):
            self.assertEqual(self.router.run("/usr/bin/triton", "put", "-", stdin=b"x" * 60000)[0], 0)
        self.assertIn("too long for ubus", self.call("call", "history")["error"])
        self.assertEqual(len(self.call("call", "history", stdin=b'{"limit":2}')["records"]), 2)


class Defaults(unittest.TestCase):
    """/etc/uci-defaults: sourced at the first boot."""

    SCRIPT = "/etc/uci-defaults/80-triton"

    def setUp(self):
        self.router = Router().install()
        self.addCleanup(self.router.close)

    def run_script(self):
        result = self.router.run("/bin/busybox", "ash", "-c", f"( . {self.SCRIPT} )")
        self.assertEqual(result, (0, "", ""))
        self.assertEqual(self.router.read("procd/violations"), "")

    def config(self):
        return self.router.read("etc/config/triton")

    def test_what_is_there_stays(self):
        shipped = self.config()
        self.run_script()
        self.assertEqual(self.config(), shipped)
        self.router.configure(url=["wss://x"], label=["a=$(b) 'c'"])
        own = self.config()
        for name, text in (("identifier", "given"), ("instance", "0" * 32)):
            self.router.write("etc/triton/" + name, text)
            os.chmod(self.router.path("etc/triton", name), 0o644)
        os.chmod(self.router.path("etc/triton"), 0o755)
        for _ in range(2):
            self.run_script()
            self.assertEqual(self.config(), own)
            self.assertEqual(self.router.read("etc/triton/identifier"), "given")
            self.assertEqual(self.router.mode("etc/triton"), 0o700)
            self.assertEqual(self.router.mode("etc/triton/identifier"), 0o600)
            self.assertEqual(self.router.mode("etc/triton/instance"), 0o600)

    def test_what_is_missing_is_made(self):
        os.remove(self.router.path("etc/config/triton"))
        self.run_script()
        self.assertEqual(self.config().split(), ["config", "triton", "'main'"])
        self.run_script()
        self.assertEqual(self.config().split(), ["config", "triton", "'main'"])

    def test_an_image_with_an_address_starts_at_the_first_boot(self):
        # What the README says an image builder should write, taken from there.
        with open(os.path.join(os.path.dirname(FILES), "..", "README.md"), encoding="utf-8") as file:
            example = file.read().split("files/etc/uci-defaults/90-fleet", 1)[1].split("```")[1].split("\n", 1)[1]
        self.router.write("etc/uci-defaults/90-fleet", example)
        self.run_script()
        self.assertEqual(self.router.run("/bin/busybox", "ash", "/etc/uci-defaults/90-fleet"), (0, "", ""))
        self.assertEqual(self.router.read("procd/violations"), "")
        self.assertEqual(self.router.init("boot")[0], ["start"])
        self.assertEqual(self.router.toml()["url"], ["wss://poseidon.example.com:8787"])
        self.router.started()


if __name__ == "__main__":
    unittest.main()
