//! A systemd of the test's own, as the first process of a machine that is nothing but namespaces: this machine's `/usr` read-only, and a
//! folder for everything else. For a test that runs in its own network as root.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use super::wait_until;

const NEEDED: &str = "this test needs root (or sudo without a password), a kernel with cgroup v2 that may be written (in a container: --privileged --cgroupns private), and \
    apt-get install --no-install-recommends systemd util-linux iproute2";

/// Where the test itself sees the control groups.
const CONTROL_GROUPS: &str = "/run/control-groups";

/// `$1` is the machine's folder, `$2` the program under test.
const BOOT: &str = r#"
mount --bind "$1" "$1"; cd "$1"
mount --bind /usr usr; mount -o remount,bind,ro usr
mount -t tmpfs tmpfs usr/local; mkdir usr/local/bin
touch usr/local/bin/cache-node; mount --bind "$2" usr/local/bin/cache-node
# What systemd would set there, it would set for this machine.
mount -t proc proc proc; mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/shm dev/pts; mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
pivot_root . old; cd /; umount -l /old
# As the kernel's first process has it; credentials arrive by it.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system
"#;

/// A machine that runs; dropping it ends every process of it.
#[derive(Debug)]
pub struct Machine {
    folder: TempDir,
    control_group: PathBuf,
    boot: Option<Child>,
}

impl Machine {
    /// Boots one, and waits until it is up.
    pub fn start() -> Machine {
        let folder = TempDir::new().unwrap();
        prepare(folder.path()).unwrap_or_else(|error| panic!("cannot prepare the machine: {error}; {NEEDED}"));
        run(Command::new("ip").args(["link", "set", "lo", "up"]));
        fs::create_dir(CONTROL_GROUPS).unwrap();
        run(Command::new("mount").args(["-t", "cgroup2", "cgroup2", CONTROL_GROUPS]));
        let control_group = Path::new(CONTROL_GROUPS).join(format!("cache-node-test-{}", std::process::id()));
        let mut machine = Machine { folder, control_group, boot: None };
        machine.boot();
        machine
    }

    fn boot(&mut self) {
        fs::create_dir(&self.control_group).unwrap_or_else(|error| panic!("cannot make a control group: {error}; {NEEDED}"));
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "sh", "-ec", "echo $$ >\"$0\"; exec \"$@\""])
            .arg(self.control_group.join("cgroup.procs"));
        command.args([
            "unshare",
            "--kill-child",
            "--fork",
            "--pid",
            "--mount",
            "--cgroup",
            "--uts",
            "--ipc",
            "sh",
            "-ec",
            BOOT,
            "boot",
        ]);
        command.arg(self.folder.path()).arg(env!("CARGO_BIN_EXE_cache-node")).stdin(Stdio::null());
        self.boot = Some(command.spawn().unwrap_or_else(|error| panic!("cannot run setpriv: {error}; {NEEDED}")));
        wait_until(&format!("systemd is up ({NEEDED})"), || {
            if let Some(status) = self.boot.as_mut().unwrap().try_wait().unwrap() {
                panic!("no systemd: {status}; {NEEDED}");
            }
            let output = self.first_process().map(|_| self.output("systemctl is-system-running"));
            output.is_some_and(|output| ["running\n", "degraded\n"].iter().any(|state| output.stdout == state.as_bytes()))
        });
    }

    /// The power is cut, and comes back.
    pub fn lose_power(&mut self) {
        self.end();
        self.boot();
    }

    /// Puts a file there as `install -m` does.
    pub fn install(&self, path: &str, mode: u32, text: &str) {
        let path = self.folder.path().join(path.trim_start_matches('/'));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Runs a line of a shell on the machine, which must succeed, and gives what it printed.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            let journal = self.output("journalctl --no-pager --lines 60");
            panic!("{line}: {}: {out}{errors}\n{}", output.status, String::from_utf8_lossy(&journal.stdout));
        }
        out.trim_end().to_owned()
    }

    fn output(&self, line: &str) -> Output {
        let process = self.first_process().expect("the machine runs").to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &process, "--mount", "--pid", "--uts", "--ipc", "--root", "--wd", "sh", "-c", line]);
        command.stdin(Stdio::null()).env_remove("LANG").output().unwrap()
    }

    /// systemd, as a process of this machine.
    fn first_process(&self) -> Option<u32> {
        let boot = self.boot.as_ref()?.id();
        fs::read_to_string(format!("/proc/{boot}/task/{boot}/children")).ok()?.trim().parse().ok()
    }

    fn end(&mut self) {
        let Some(mut boot) = self.boot.take() else { return };
        drop(boot.kill().and_then(|()| boot.wait()));
        // The kernel ends the processes with the first one, and lets the groups go a moment later.
        wait_until("every process has ended", || remove_groups(&self.control_group).is_ok());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

fn prepare(folder: &Path) -> io::Result<()> {
    for name in ["dev", "old", "proc", "root", "run", "sys", "tmp", "usr", "var", "etc/systemd/system", "etc/cache-node"] {
        fs::create_dir_all(folder.join(name))?;
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{name}"), folder.join(name))?;
    }
    let files = [
        ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("group", "root:x:0:\n"),
        ("nsswitch.conf", "passwd: files systemd\ngroup: files systemd\n"),
        // Without one it would be the first boot, at which Debian enables every service that is installed.
        ("machine-id", "5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e\n"),
    ];
    for (name, text) in files {
        fs::write(folder.join("etc").join(name), text)?;
    }
    fs::copy("/etc/ld.so.cache", folder.join("etc/ld.so.cache")).map(drop)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {:?}: {error}; {NEEDED}", command.get_program()));
    assert!(output.status.success(), "{command:?}: {}; {NEEDED}", String::from_utf8_lossy(&output.stderr));
}

/// Removes a control group and those in it.
fn remove_groups(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
