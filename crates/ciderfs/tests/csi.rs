//! `ciderfs csi` as a cluster runs it: the program, its socket, a Secret.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::large_futures, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;

use ciderfs_csi::proto::controller_client::ControllerClient;
use ciderfs_csi::proto::volume_capability::access_mode::Mode;
use ciderfs_csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use ciderfs_csi::proto::*;
use support::client::{program, succeed, wait_for};
use support::volume::{Engine, NAME, Volume};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const HUSH: &str = "hush-41c9";

struct Driver {
    child: Child,
    log: PathBuf,
    channel: Channel,
}

impl Driver {
    async fn start(dir: &Path, mode: &str) -> Self {
        let (socket, log) = (dir.join("csi.sock"), dir.join("csi.log"));
        let endpoint = format!("unix://{}", socket.display());
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = program();
        command.args(["csi", "--driver-name=csi.juicefs.com", &format!("--mode={mode}")]);
        command.arg(format!("--endpoint={endpoint}")).stderr(file);
        let child = command.spawn().unwrap();
        wait_for("the driver listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        let channel = Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap();
        Self { child, log, channel }
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(secrets: &BTreeMap<String, String>, name: &str) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(CapacityRange { required_bytes: 1 << 30, limit_bytes: 0 }),
        volume_capabilities: vec![VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
        }],
        secrets: secrets.clone(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_a_file_system_that_is_not_there_yet() {
    for engine in [Engine::Redis, Engine::Sqlite] {
        let volume = Volume::unformatted(engine);
        let bucket = format!("{}/", volume.objects.display());
        let pairs = [
            ("name", NAME),
            ("metaurl", &volume.meta),
            ("storage", "file"),
            ("bucket", &bucket),
            ("secret-key", HUSH),
            ("format-options", "trash-days=0"),
        ];
        let secrets: BTreeMap<String, String> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let driver = Driver::start(volume.dir.path(), "controller").await;
        let mut never = request(&secrets, "pvc-1");
        never.parameters.insert("format".into(), "never".into());
        let refused = driver.controller().create_volume(never).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let mut no_bucket = request(&secrets, "pvc-1");
        no_bucket.secrets.retain(|key, _| key != "bucket" && key != "storage");
        let refused = driver.controller().create_volume(no_bucket).await.unwrap_err();
        assert!(
            refused.code() == Code::FailedPrecondition && refused.message().contains("bucket"),
            "{refused}"
        );
        let mut wrong = request(&secrets, "pvc-1");
        wrong.secrets.insert("format-options".into(), "no-such-flag=1".into());
        let refused = driver.controller().create_volume(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");

        let made = driver.controller().create_volume(request(&secrets, "pvc-1")).await.unwrap().into_inner();
        let status = succeed(&["status", &volume.meta]).stdout;
        assert!(status.contains("\"TrashDays\": 0"), "{status}");
        let quota = succeed(&["quota", "get", &volume.meta, "--path", "/pvc-1"]).stdout;
        assert!(quota.contains("1.0 GiB"), "{quota}");
        // Killed, it leaves its socket behind; the next one knows what it made.
        let log = driver.log.clone();
        drop(driver);
        let driver = Driver::start(volume.dir.path(), "controller").await;
        let again = driver.controller().create_volume(request(&secrets, "pvc-1")).await.unwrap().into_inner();
        assert_eq!(again, made);
        let mount = volume.mount(&[]);
        std::fs::write(mount.path().join("pvc-1/file"), "data").unwrap();
        let request = DeleteVolumeRequest { volume_id: "pvc-1".into(), secrets };
        driver.controller().delete_volume(request).await.unwrap();
        wait_for("the directory is gone", || !mount.path().join("pvc-1").exists());
        wait_for("its content is removed", || {
            std::fs::read_dir(mount.path().join(".deleting")).unwrap().next().is_none()
        });
        mount.unmount();
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("CreateVolume") && !log.contains(HUSH), "{log}");
        drop(driver);
        // Objects are removed by the hourly work of mounts.
        volume.check_but_for_pending();
    }
}
