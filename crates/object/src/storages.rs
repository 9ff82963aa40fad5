//! The storages of the official client: which are opened here, and how.

use crate::error::ObjectError;

/// What objects of a storage go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A driver of this program.
    Own,
    /// The client for S3.
    S3,
    /// A service of opendal, by the name it has there.
    Opendal(&'static str),
    /// Not opened; what to use instead.
    Refused(&'static str),
}

/// A storage that a volume may name.
#[derive(Debug, Clone, Copy)]
pub struct Storage {
    /// Value of `--storage`.
    pub name: &'static str,
    /// How `--bucket` is written; empty for one that is not opened.
    pub address: &'static str,
    /// What the access key and the secret key are, and which variables stand in for them.
    pub keys: &'static str,
    /// What its objects go through.
    pub way: Way,
    /// Whether tests put objects there, and read what the official client has put.
    pub tested: bool,
}

const fn own(name: &'static str, address: &'static str, keys: &'static str, way: Way) -> Storage {
    Storage { name, address, keys, way, tested: true }
}

const fn untested(name: &'static str, address: &'static str, keys: &'static str, way: Way) -> Storage {
    Storage { name, address, keys, way, tested: false }
}

const fn refused(name: &'static str, instead: &'static str) -> Storage {
    Storage { name, address: "", keys: "", way: Way::Refused(instead), tested: false }
}

const KEYS: &str = "access key, secret key";
const MOUNTED: &str = "mount it with the system's own client and use --storage file with a directory on it";
const DATABASE: &str =
    "the engine of the metadata is no place for blocks: use S3, a directory, or redis for small volumes";

/// All storages, those that are opened first.
pub const STORAGES: &[Storage] = &[
    own("file", "/DIRECTORY/", "none", Way::Own),
    own("mem", "any text; for tests", "none", Way::Own),
    own(
        "s3",
        "https://ENDPOINT/BUCKET, https://BUCKET.ENDPOINT or BUCKET",
        "access key, secret key; AWS_ACCESS_KEY_ID and the other sources of AWS",
        Way::S3,
    ),
    own(
        "minio",
        "http://HOST:PORT/BUCKET",
        "access key, secret key; MINIO_ACCESS_KEY, MINIO_SECRET_KEY",
        Way::S3,
    ),
    own("redis", "redis[s]://HOST:PORT/DB, a single server", "user, password", Way::Own),
    own("webdav", "http[s]://HOST/PATH", "user, password (basic authentication)", Way::Opendal("webdav")),
    own(
        "sftp",
        "HOST:/DIRECTORY/ or HOST:PORT:/DIRECTORY/",
        "user, no password; SSH_PRIVATE_KEY_PATH or the SSH agent",
        Way::Opendal("sftp"),
    ),
    untested("wasabi", "https://BUCKET.s3.REGION.wasabisys.com", KEYS, Way::S3),
    untested(
        "scw",
        "https://BUCKET.s3.REGION.scw.cloud",
        "access key, secret key; SCW_ACCESS_KEY, SCW_SECRET_KEY",
        Way::S3,
    ),
    untested("space", "https://BUCKET.REGION.digitaloceanspaces.com", KEYS, Way::S3),
    untested(
        "eos",
        "https://BUCKET.eos-REGION-1.cmecloud.cn",
        "access key, secret key; EOS_ACCESS_KEY, EOS_SECRET_KEY",
        Way::S3,
    ),
    untested("oos", "https://BUCKET.oos-REGION.ctyunapi.cn", KEYS, Way::S3),
    untested(
        "b2",
        "https://BUCKET.s3.REGION.backblazeb2.com",
        "key id, application key (not the master key)",
        Way::S3,
    ),
    untested("qiniu", "https://BUCKET.s3-REGION.qiniucs.com", KEYS, Way::S3),
    untested("ks3", "https://BUCKET.ks3-REGION.ksyuncs.com", KEYS, Way::S3),
    untested(
        "gs",
        "gs://BUCKET",
        "none; GOOGLE_APPLICATION_CREDENTIALS or the machine's account",
        Way::Opendal("gcs"),
    ),
    untested(
        "wasb",
        "https://CONTAINER.core.windows.net",
        "storage account, its key; AZURE_STORAGE_CONNECTION_STRING",
        Way::Opendal("azblob"),
    ),
    untested(
        "oss",
        "https://BUCKET.oss-REGION.aliyuncs.com",
        "access key, secret key; ALICLOUD_ACCESS_KEY_ID, ALICLOUD_ACCESS_KEY_SECRET, SECURITY_TOKEN",
        Way::Opendal("oss"),
    ),
    untested(
        "cos",
        "https://BUCKET-APPID.cos.REGION.myqcloud.com",
        "secret id, secret key; COS_SECRETID, COS_SECRETKEY",
        Way::Opendal("cos"),
    ),
    untested(
        "obs",
        "https://BUCKET.obs.REGION.myhuaweicloud.com",
        "access key, secret key; HWCLOUD_ACCESS_KEY, HWCLOUD_SECRET_KEY",
        Way::Opendal("obs"),
    ),
    untested("tos", "https://BUCKET.tos-REGION.volces.com", KEYS, Way::Opendal("tos")),
    refused("nfs", MOUNTED),
    refused("cifs", MOUNTED),
    refused("smb", MOUNTED),
    refused("gluster", MOUNTED),
    refused("ceph", "use the S3 gateway of Ceph with --storage s3, or mount CephFS and use --storage file"),
    refused("hdfs", "use the S3 gateway of the cluster (Ozone has one) with --storage s3"),
    refused("swift", "use the S3 interface of Swift (s3api) with --storage s3 and its EC2 keys"),
    refused(
        "ibmcos",
        "make HMAC credentials and use --storage s3 --bucket https://s3.REGION.cloud-object-storage.appdomain.cloud/BUCKET",
    ),
    refused("bos", "use its S3 interface with --storage s3 --bucket https://s3.REGION.bcebos.com/BUCKET"),
    refused("ufile", "use its S3 interface with --storage s3 --bucket https://s3-REGION.ufileos.com/BUCKET"),
    refused(
        "qingstor",
        "use its S3 interface with --storage s3 --bucket https://s3.ZONE.qingstor.com/BUCKET",
    ),
    refused(
        "jss",
        "use its S3 interface with --storage s3 --bucket https://s3.REGION.jdcloud-oss.com/BUCKET",
    ),
    refused("scs", "use its S3 interface with --storage s3"),
    refused("mss", "use its S3 interface with --storage s3"),
    refused("nos", "use its S3 interface with --storage s3"),
    refused("speedy", "use its S3 interface with --storage s3"),
    refused(
        "storj",
        "use the Storj S3 gateway with --storage s3 --bucket https://gateway.storjshare.io/BUCKET",
    ),
    refused("dragonfly", "use the storage behind it directly"),
    refused("bunny", "there is no interface of it that this program speaks: use another storage"),
    refused("etcd", DATABASE),
    refused("tikv", DATABASE),
    refused("mysql", DATABASE),
    refused("postgres", DATABASE),
    refused("sqlite3", DATABASE),
];

/// A storage by its name, in any case.
pub fn storage_named(name: &str) -> Option<&'static Storage> {
    STORAGES.iter().find(|storage| storage.name.eq_ignore_ascii_case(name))
}

/// Why a storage is not opened.
pub(crate) fn refusal(name: &str) -> ObjectError {
    ObjectError::Config(match storage_named(name) {
        Some(Storage { way: Way::Refused(instead), .. }) => {
            format!("storage {name:?} of the official client is not supported here: {instead}")
        }
        _ => {
            let opened = STORAGES.iter().filter(|storage| !matches!(storage.way, Way::Refused(_)));
            let names: Vec<&str> = opened.map(|storage| storage.name).filter(|name| *name != "mem").collect();
            format!("there is no storage {name:?}: known are {}", names.join(", "))
        }
    })
}
