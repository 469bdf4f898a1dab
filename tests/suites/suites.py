"""The test suites of real clients: where their source comes from, how one run is started, and what came of each test.

A suite has a name; `fetch(where)`: why it cannot be had, or None; `run(place, only)`: outcomes by test. A place is the server itself or
a target of the gateway: host, port, user, password, database, root certificate. Nothing of a suite is kept in this repository."""
import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as Xml

PYTHON = "/usr/bin/python3"


def outcomes(path, name):
    """A report in JUnit's format: outcome and first line of the reason by test; `name` makes a test's name of its element."""
    got = {}
    with open(path, encoding="utf-8", errors="replace") as f:
        text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|&#(?:[0-8]|1[124-9]|2\d|3[01]);", "?", f.read())  # what XML cannot have, and names of tests do
    for case in Xml.fromstring(text.encode()).iter("testcase"):
        kind, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                kind = {"skipped": "skipped"}.get(child.tag, "failed")
                why = ((child.get("message") or child.text or "").strip().split("\n") or [""])[0]
                break
        n = name(case)
        if got.get(n, ("",))[0] != "failed":  # a test and its cleaning up are two elements of one name
            got[n] = (kind, why[:300])
    return got


def debian_source(where, package, folder):
    """The source package as Debian has it, unpacked into where/folder; lists and archives of its own, so that nobody need be root."""
    apt = os.path.join(where, "apt")
    os.makedirs(os.path.join(apt, "lists", "partial"), exist_ok=True)
    os.makedirs(os.path.join(apt, "cache", "archives", "partial"), exist_ok=True)
    release = subprocess.run(["sed", "-n", "s/^VERSION_CODENAME=//p", "/etc/os-release"], capture_output=True, text=True).stdout.strip()
    with open(os.path.join(apt, "sources.list"), "w") as f:
        f.write("deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian %s main\n" % release)
    options = [o for k, v in (("Etc::sourcelist", "sources.list"), ("State::lists", "lists"), ("Cache", "cache"))
               for o in ("-o", "Dir::%s=%s" % (k, os.path.join(apt, v)))] + ["-o", "Dir::Etc::sourceparts=-"]
    for step in (["update"], ["source", package]):
        r = subprocess.run(["apt-get", "-q", *options, *step], cwd=where, capture_output=True, text=True)
        if r.returncode != 0:
            errors = [e for e in (r.stderr + r.stdout).split("\n") if e.startswith("E:")]
            return "apt-get %s failed: %s" % (" ".join(step), errors[0] if errors else "")
    made = [d for d in glob.glob(os.path.join(where, package + "-*")) if os.path.isdir(d)]
    if not made:
        return "apt-get source left nothing"
    os.rename(made[0], folder)
    return None


# Type checking, tests that measure time, those that take more than a few seconds, and those that need a program that Debian has not.
LEFT_OUT = "not mypy and not timing and not slow and not proxy"


class Psycopg3:
    """Debian's python3-psycopg with the tests of the same version, but those of its pool, which wait most of the time."""
    name = "psycopg3"
    title = "psycopg 3"
    given = "COUNTERSIGN_SUITE_PSYCOPG3"
    settings = ()

    def version(self):
        r = subprocess.run(["dpkg-query", "-W", "-f=${Version}", "python3-psycopg"], capture_output=True, text=True)
        return r.stdout.split("-")[0]

    def fetch(self, where):
        self.where = os.path.join(where, self.name)
        os.makedirs(self.where, exist_ok=True)
        for module in ("psycopg", "psycopg_pool", "pytest", "pytest_asyncio", "dns"):
            if subprocess.run([PYTHON, "-c", "import " + module], capture_output=True).returncode != 0:
                return "there is no Python module " + module
        self.source = os.environ.get(self.given) or os.path.join(self.where, "source")
        if not os.path.isdir(os.path.join(self.source, "tests")) and self.given not in os.environ:
            why = debian_source(self.where, "psycopg3", self.source)
            if why:
                return why + " (%s=DIRECTORY names a tree of version %s: the tag of that name in psycopg's repository)" % (self.given, self.version())
        return None if os.path.isdir(os.path.join(self.source, "tests")) else "there are no tests in " + self.source

    def run(self, place, only=()):
        """Only the tests directory is used of the source: the package under test is Debian's."""
        base = os.path.join(self.where, place["label"])
        shutil.rmtree(base, ignore_errors=True)  # with what an earlier run left in pytest's cache
        os.makedirs(base)
        os.symlink(os.path.join(self.source, "tests"), os.path.join(base, "tests"))
        report = os.path.join(base, "report.xml")
        dsn = "host=localhost hostaddr=127.0.0.1 port=%(port)d user=%(user)s password=%(password)s dbname=%(database)s sslmode=verify-full sslrootcert=%(root)s gssencmode=disable" % place
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env.update(PSYCOPG_TEST_DSN=dsn, PYTHONDONTWRITEBYTECODE="1", PSYCOPG_IMPL="python")
        argv = [PYTHON, "-m", "pytest", "-q", "-o", "cache_dir=" + os.path.join(base, "cache"), "-o", "asyncio_mode=auto",
                "-m", LEFT_OUT, "--ignore=tests/pool", "--junitxml=" + report]
        with open(os.path.join(base, "log"), "w") as log:
            r = subprocess.run(argv + (list(only) or ["tests"]), cwd=base, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        if r.returncode not in (0, 1) or not os.path.exists(report):  # all passed, some failed; anything else is no result
            sys.exit("psycopg 3's tests did not run: see " + log.name)

        def name(case):
            parts = case.get("classname").split(".")
            n = len(parts) - parts[-1][:1].isupper()  # modules are lower case, classes are not; a module that is skipped whole has none
            return "::".join(["/".join(parts[:n]) + ".py", *parts[n:], case.get("name")])
        return outcomes(report, name)

    def again(self, tests):
        """Their functions, with all parameters: not every parameter can be named on a command line."""
        return {re.sub(r"\[.*", "", t) for t in tests}


# Of pgjdbc: what waits, or takes long for what it says of a gateway (conversions of dates, counts, rows by the thousand each of which waits
# for its record); and one test that would never end through a gateway: it terminates the process whose number it was told, which is no
# process of the server, and writes into a COPY until that fails.
LEFT_OUT_JDBC = ["BatchFailureTest", "BigDecimalByteConverter2Test", "ConnectionValidTest", "ConnectionValidTimeoutTest", "GetObject310Test",
                 "GetObjectTest", "LargeCountJdbc42Test", "SetObject310Test", "SharedTimerClassLoaderLeakTest",
                 "CopyTest#testLockReleaseOnCancelFailure"]


class Pgjdbc:
    """The source distribution that pgjdbc publishes for packagers, with its tests; Maven builds it and runs them."""
    name = "pgjdbc"
    title = "pgjdbc"
    VERSION = "42.5.5"  # as Debian's libpostgresql-jdbc-java
    settings = ()

    def version(self):
        return self.VERSION

    def mvn(self, log, *arguments):
        argv = ["mvn", "-q", "-B", "-DskipShadeDependencies=true", *arguments]
        with open(os.path.join(self.where, log), "w") as f:
            return subprocess.run(argv, cwd=self.source, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT).returncode == 0

    def fetch(self, where):
        self.where = os.path.join(where, self.name)
        self.source = os.path.join(self.where, "postgresql-%s-jdbc-src" % self.VERSION)
        if shutil.which("mvn") is None or shutil.which("javac") is None:
            return "there is no Maven or no Java compiler"
        if os.path.exists(os.path.join(self.source, "ready")):
            return None
        shutil.rmtree(self.where, ignore_errors=True)
        os.makedirs(self.where)
        artifact = "org.postgresql:postgresql:%s:tar.gz:jdbc-src" % self.VERSION
        copy = ["mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy", "-Dartifact=" + artifact, "-DoutputDirectory=" + self.where]
        r = subprocess.run(copy, cwd=self.where, capture_output=True, text=True)
        if r.returncode != 0:
            return "Maven could not get %s: %s" % (artifact, (r.stdout + r.stderr).strip()[:200])
        with tarfile.open(self.source + ".tar.gz") as t:
            t.extractall(self.where)
        if not self.mvn("fetch.log", "-Dtest=OidValueOfTest", "test"):  # which also gets what running a test needs
            return "it could not be built: see %s/fetch.log" % self.where
        open(os.path.join(self.source, "ready"), "w").close()
        return None

    def run(self, place, only=()):
        reports = os.path.join(self.source, "target", "surefire-reports")
        shutil.rmtree(reports, ignore_errors=True)
        with open(os.path.join(self.source, "build.local.properties"), "w") as f:
            f.write("port=%(port)d\ndatabase=%(database)s\nusername=%(user)s\npassword=%(password)s\nprivilegedUser=%(user)s\n"
                    "privilegedPassword=%(password)s\nsecondaryPort1=1\nsecondaryPort2=1\n" % place)
        chosen = ["-Dtest=" + ",".join(list(only) or ["!" + c for c in LEFT_OUT_JDBC])]
        self.mvn(place["label"] + ".log", "-o", "-Dmaven.test.failure.ignore=true", "-DfailIfNoTests=false", *chosen, "surefire:test")
        got = {}
        for path in sorted(glob.glob(os.path.join(reports, "TEST-*.xml"))):
            for test, outcome in outcomes(path, lambda case: case.get("classname").replace("org.postgresql.", "") + "." + case.get("name")).items():
                got[test] = outcome
        if not got:
            sys.exit("pgjdbc's tests did not run: see %s/%s.log" % (self.where, place["label"]))
        return got

    def again(self, tests):
        """Their classes: the first part of a name that begins with a capital."""
        return {next(part for part in t.split(".") if part[:1].isupper()) for t in tests}


SUITES = [Psycopg3(), Pgjdbc()]
