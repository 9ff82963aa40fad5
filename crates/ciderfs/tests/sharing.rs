//! Two mounts of one volume: what a reader may rely on while another client writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use support::{Engine, Volume, noise};

on_engines!(
    a_file_that_grew_elsewhere_is_not_cut_at_the_length_known_here,
    a_file_replaced_elsewhere_is_opened_by_its_name_at_once,
    a_deleted_file_is_opened_again_through_its_descriptor,
);

fn a_file_that_grew_elsewhere_is_not_cut_at_the_length_known_here(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
    for round in 1..20_usize {
        let data = noise(round as u64, round * 1000);
        fs::write(writer.join("f"), &data).unwrap();
        // Opening sees what the last close left, whatever the kernel remembers of the attributes.
        let open = File::open(reader.join("f")).unwrap();
        assert_eq!(open.metadata().unwrap().len(), data.len() as u64, "round {round}");
        assert!(fs::read(reader.join("f")).unwrap() == data, "round {round}");
    }
    reader.unmount();
    writer.unmount();
    volume.check();
}

fn a_file_replaced_elsewhere_is_opened_by_its_name_at_once(engine: Engine) {
    for trash in ["--trash-days=0", "--trash-days=1"] {
        let volume = Volume::new(engine, &[trash]);
        let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
        fs::write(writer.join("f"), b"0").unwrap();
        let mut held = Vec::new();
        for round in 1..12_u32 {
            // The name is in the kernel's cache, every other time with the file open as well.
            let open = File::open(reader.join("f")).unwrap();
            if round.is_multiple_of(2) {
                held.push((open, (round - 1).to_string()));
            }
            fs::write(writer.join("new"), round.to_string()).unwrap();
            fs::rename(writer.join("new"), writer.join("f")).unwrap();
            assert_eq!(fs::read_to_string(reader.join("f")).unwrap(), round.to_string(), "{trash}");
            let inode = |m: &support::Mount| fs::metadata(m.join("f")).unwrap().ino();
            assert_eq!(inode(&reader), inode(&writer), "{trash}");
        }
        drop(held);
        reader.unmount();
        writer.unmount();
    }
}

fn a_deleted_file_is_opened_again_through_its_descriptor(engine: Engine) {
    use std::os::fd::AsRawFd as _;
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    fs::write(mount.join("f"), b"still here").unwrap();
    let open = File::open(mount.join("f")).unwrap();
    fs::remove_file(mount.join("f")).unwrap();
    let again = format!("/proc/self/fd/{}", open.as_raw_fd());
    for _ in 0..3 {
        assert_eq!(fs::read(&again).unwrap(), b"still here");
    }
    drop(open);
    mount.unmount();
    volume.check();
}
