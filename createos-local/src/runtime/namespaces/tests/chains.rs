//! Sandboxes that are layered from others, on the real kernel.

use super::*;
use crate::runtime::Saved;

fn generation(number: u32) -> SandboxId {
    format!("sb-{number:026}").parse().expect("id")
}

impl Machine {
    /// Ends a sandbox, forks it and boots the fork. The source stays as it is.
    async fn next_generation(&self, source: &SandboxId, child: &SandboxId) {
        self.runtime.stop(source).await.expect("stop");
        let saved = self.runtime.fork(source, Saved::Files, spec(child)).await.expect("fork");
        assert_eq!(saved, Saved::Files);
        self.runtime.boot(spec(child)).await.expect("boot");
    }
}

#[tokio::test]
async fn what_was_removed_renamed_and_replaced_in_a_layer_is_so_above_it() {
    let machine = Machine::boot().await;
    let (first, second) = (generation(1), generation(2));
    machine
        .run(
            "cd /root; mkdir -p old/deep kept renamed; echo 1 >old/deep/a; echo 1 >kept/b; \
             echo 1 >renamed/c; echo 1 >gone; ln -s kept/b link; mkfifo fifo",
        )
        .await;
    machine.next_generation(&machine.id, &first).await;
    // A directory that takes the place of another one hides what lies below it.
    let changes = "cd /root; rm gone; rm -r old; mkdir old; echo 2 >old/new; \
                   mv renamed moved && echo 2 >>moved/c; echo 2 >>kept/b; rm /etc/hostname; \
                   rm -r /usr/share/doc; mkdir -p /usr/local/lib/x; echo done";
    assert_eq!(machine.run_in(&first, changes).await, "done\n");
    machine.next_generation(&first, &second).await;
    let found = "cd /root; ls -A; find old moved kept -type f | sort | xargs tail -n +1; \
                 cat link; stat -c %F fifo; ls /usr/local/lib/x /usr/share/doc 2>&1";
    let expected = "fifo\nkept\nlink\nmoved\nold\n\
                    ==> kept/b <==\n1\n2\n\n==> moved/c <==\n1\n2\n\n==> old/new <==\n2\n\
                    1\n2\nfifo\n\
                    ls: cannot access '/usr/share/doc': No such file or directory\n\
                    /usr/local/lib/x:\n";
    assert_eq!(machine.run_in(&second, found).await, expected);
    // Nothing of that happened to the one it all came from.
    machine.runtime.boot(spec(&machine.id)).await.expect("boot");
    let first_ones = machine.run("cd /root; cat gone old/deep/a renamed/c kept/b").await.0;
    assert_eq!(first_ones, "1\n1\n1\n1\n");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn owners_modes_and_attributes_come_through_layers() {
    let machine = Machine::boot().await;
    let many_ids = machine.runtime.facts().ids > 1;
    let child = generation(1);
    let make = "cp /usr/bin/id /usr/local/bin/elevated; cp /bin/true /root/odd; \
                chmod 2751 /root/odd; touch -d 2001-02-03T04:05:06Z /root/odd; \
                truncate -s 1G /root/sparse; mkdir -m 1777 /root/open; ln /root/odd /root/same";
    machine.run(make).await;
    if many_ids {
        let own = "chown 65534:65534 /root/odd; chmod 2751 /root/odd; \
                   touch -d 2001-02-03T04:05:06Z /root/odd; chmod 4755 /usr/local/bin/elevated";
        machine.run(own).await;
    }
    let look = "stat -c '%a %u %g %s %Y %h' /root/odd; stat -c %a /root/open; \
                stat -c '%s %b' /root/sparse; stat -c '%a %u' /usr/local/bin/elevated";
    let before = machine.run(look).await.0;
    machine.next_generation(&machine.id, &child).await;
    assert_eq!(machine.run_in(&child, look).await, before);
    if many_ids {
        // Setuid works in a layer, as root inside and nobody outside.
        let elevated = "setpriv --reuid 1000 --regid 1000 --clear-groups \
                        /usr/local/bin/elevated -u";
        assert_eq!(machine.run_in(&child, elevated).await, "0\n");
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_root_on_several_filesystems_is_one_to_programs_inside() {
    let machine = Machine::boot().await;
    if machine.runtime.facts().privileged {
        let child = generation(1);
        machine.run("mkdir /root/d; echo x >/root/d/f").await;
        machine.next_generation(&machine.id, &child).await;
        let look = "touch /root/own; stat -c %d / /root/own /root/d /root/d/f /etc/passwd | \
                    sort -u | wc -l; python3 -c 'import os; os.rename(\"/root/d\", \"/root/e\"); \
                    os.rename(\"/etc/pam.d\", \"/etc/pam.e\")' && cat /root/e/f";
        assert_eq!(machine.run_in(&child, look).await, "1\nx\n");
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_chain_as_long_as_chains_get_boots_and_goes() {
    let machine = Machine::boot().await;
    let mut last = machine.id.clone();
    for number in 1..=12 {
        machine.run_in(&last, &format!("echo {number} >/root/{number}; rm -f /root/1")).await;
        let next = generation(number);
        machine.next_generation(&last, &next).await;
        last = next;
    }
    let found = machine.run_in(&last, "ls /root | sort -n | tr '\\n' ' '").await;
    assert_eq!(found, "2 3 4 5 6 7 8 9 10 11 12 ");
    let directory = machine.data.path().join("layers");
    let layers = || std::fs::read_dir(&directory).expect("layers").count();
    assert!((10..=12).contains(&layers()), "{}", layers());
    for id in machine.runtime.on_disk().await.expect("list") {
        machine.runtime.remove(&id).await.expect("remove");
    }
    assert_eq!(layers(), 0);
    machine.runtime.shutdown().await;
}

/// Loop devices that show a file below a directory.
fn loop_devices(directory: &Path) -> usize {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backing = devices.map(|device| device.path().join("loop/backing_file"));
    let files = backing.filter_map(|path| std::fs::read_to_string(path).ok());
    files.filter(|file| Path::new(file).starts_with(directory)).count()
}

#[tokio::test]
async fn a_killed_warden_leaves_no_loop_device_and_its_disks_open_again() {
    let machine = Machine::boot().await;
    if machine.runtime.facts().no_disks.is_none() {
        machine.run("echo kept >/root/f; sync").await;
        let data = machine.data.path().canonicalize().expect("path");
        assert!(loop_devices(&data) > 0);
        let mut deaths = machine.runtime.deaths().expect("taken once");
        signal(machine.warden(), rustix::process::Signal::KILL);
        deaths.recv().await.expect("told");
        let cleared = async {
            while loop_devices(&data) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), cleared).await.expect("the kernel clears up");
        machine.runtime.boot(spec(&machine.id)).await.expect("a new warden opens the disk");
        assert_eq!(machine.run("cat /root/f").await.0, "kept\n");
    }
    machine.runtime.shutdown().await;
}
