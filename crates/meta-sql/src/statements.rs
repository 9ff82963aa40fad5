//! Every fixed SQL statement, with the volume's table names filled in once.
//!
//! In the texts below `jfs_` stands for the table prefix and `$NODE` for the attribute columns of `jfs_node` in the
//! order of [`crate::codec::ATTR_COLUMNS`], qualified by the alias `n`. `$ADD(a,b)` is a sum that stays at the end of 64 bits where
//! SQLite would make it a fraction.

macro_rules! statements {
    ($($name:ident = $sql:literal;)*) => {
        /// See the module.
        pub(crate) struct Statements {
            /// `jfs_` or `jfs_<prefix>_`.
            pub prefix: String,
            $(pub $name: String,)*
        }

        impl Statements {
            /// Fills in the prefix and the attribute columns.
            pub fn new(prefix: &str, node: &str) -> Self {
                Self {
                    prefix: prefix.to_owned(),
                    $($name: with_sums(&$sql.replace("jfs_", prefix).replace("$NODE", node)),)*
                }
            }
        }
    };
}

/// Spells out the sums of a statement.
fn with_sums(sql: &str) -> String {
    let mut parts = sql.split("$ADD(");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some(((a, b), rest)) =
            part.split_once(')').and_then(|(sum, rest)| Some((sum.split_once(',')?, rest)))
        else {
            continue;
        };
        out.push_str(&saturating_sum(a, b));
        out.push_str(rest);
    }
    out
}

/// The sum of a stored number, which may be a fraction or text, and another, as SQL.
pub(crate) fn saturating_sum(a: &str, b: &str) -> String {
    const MAX: &str = "9223372036854775807";
    format!(
        "CASE WHEN {b}>0 AND CAST({a} AS INTEGER)>{MAX}-{b} THEN {MAX} \
         WHEN {b}<0 AND CAST({a} AS INTEGER)<-{MAX}-1-{b} THEN -{MAX}-1 ELSE CAST({a} AS INTEGER)+{b} END"
    )
}

statements! {
    get_attr = "SELECT $NODE FROM jfs_node n WHERE n.inode=?1";
    put_attr = "INSERT OR REPLACE INTO jfs_node(inode,type,flags,mode,uid,gid,atime,atimensec,mtime,mtimensec,ctime,\
        ctimensec,nlink,length,rdev,parent,access_acl_id,default_acl_id,tier_id) \
        VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)";
    del_attr = "DELETE FROM jfs_node WHERE inode=?1";

    get_edge = "SELECT type,inode FROM jfs_edge WHERE parent=?1 AND name=?2";
    lookup = "SELECT e.type,e.inode,n.inode,$NODE FROM jfs_edge e LEFT JOIN jfs_node n ON n.inode=e.inode \
        WHERE e.parent=?1 AND e.name=?2";
    put_edge = "INSERT INTO jfs_edge(parent,name,inode,type) VALUES(?1,?2,?3,?4) \
        ON CONFLICT(parent,name) DO UPDATE SET inode=excluded.inode,type=excluded.type";
    del_edge = "DELETE FROM jfs_edge WHERE parent=?1 AND name=?2";
    dir_entry = "SELECT 1 FROM jfs_edge WHERE parent=?1 LIMIT 1";
    parents = "SELECT parent,count(*) FROM jfs_edge WHERE inode=?1 GROUP BY parent ORDER BY parent";
    list = "SELECT name,type,inode FROM jfs_edge WHERE parent=?1 AND name>?2 ORDER BY name LIMIT ?3";
    list_attrs = "SELECT e.name,e.type,e.inode,n.inode,$NODE FROM jfs_edge e \
        LEFT JOIN jfs_node n ON n.inode=e.inode WHERE e.parent=?1 AND e.name>?2 ORDER BY e.name LIMIT ?3";

    get_symlink = "SELECT CAST(target AS BLOB) FROM jfs_symlink WHERE inode=?1";
    put_symlink = "INSERT OR REPLACE INTO jfs_symlink(inode,target) VALUES(?1,?2)";
    del_symlink = "DELETE FROM jfs_symlink WHERE inode=?1";

    get_xattr = "SELECT CAST(value AS BLOB) FROM jfs_xattr WHERE inode=?1 AND name=?2";
    xattr_names = "SELECT CAST(name AS BLOB) FROM jfs_xattr WHERE inode=?1";
    xattr_sizes = "SELECT SUM(CASE WHEN name=?2 THEN 0 \
        ELSE LENGTH(CAST(name AS BLOB))+LENGTH(CAST(value AS BLOB)) END), \
        MAX(CASE WHEN name=?2 THEN LENGTH(CAST(value AS BLOB)) END) FROM jfs_xattr WHERE inode=?1";
    put_xattr = "INSERT INTO jfs_xattr(inode,name,value) VALUES(?1,?2,?3) \
        ON CONFLICT(inode,name) DO UPDATE SET value=excluded.value";
    del_xattr = "DELETE FROM jfs_xattr WHERE inode=?1 AND name=?2";
    del_xattrs = "DELETE FROM jfs_xattr WHERE inode=?1";

    // An append by the official client turns the value into TEXT with NULs inside: always cast.
    get_slices = "SELECT CAST(slices AS BLOB) FROM jfs_chunk WHERE inode=?1 AND indx=?2";
    append_slices = "INSERT INTO jfs_chunk(inode,indx,slices) VALUES(?1,?2,?3) \
        ON CONFLICT(inode,indx) DO UPDATE SET slices=CAST(slices||excluded.slices AS BLOB) \
        RETURNING length(CAST(slices AS BLOB))";
    append_existing = "UPDATE jfs_chunk SET slices=CAST(slices||?4 AS BLOB) WHERE inode=?1 AND indx>=?2 AND indx<?3";
    put_slices = "INSERT INTO jfs_chunk(inode,indx,slices) VALUES(?1,?2,?3) \
        ON CONFLICT(inode,indx) DO UPDATE SET slices=excluded.slices";
    take_slices = "DELETE FROM jfs_chunk WHERE inode=?1 AND indx=?2 RETURNING CAST(slices AS BLOB)";
    chunks = "SELECT indx FROM jfs_chunk WHERE inode=?1 ORDER BY indx LIMIT ?2";

    get_refs = "SELECT refs FROM jfs_chunk_ref WHERE chunkid=?1 AND size=?2";
    new_ref = "INSERT INTO jfs_chunk_ref(chunkid,size,refs) VALUES(?1,?2,1) \
        ON CONFLICT(chunkid) DO UPDATE SET refs=$ADD(refs,1)";
    // A damaged count stays as it is, and a slice with one is not taken for dead.
    add_refs = "UPDATE jfs_chunk_ref \
        SET refs=CASE WHEN typeof(refs)='integer' THEN $ADD(refs,?3) ELSE refs END \
        WHERE chunkid=?1 AND size=?2 RETURNING CASE WHEN typeof(refs)='integer' THEN refs ELSE 1 END";
    del_ref = "DELETE FROM jfs_chunk_ref WHERE chunkid=?1 AND size=?2 AND refs<=0";
    dead_slices = "SELECT chunkid,size FROM jfs_chunk_ref WHERE refs<=0 LIMIT ?1";

    put_delayed = "INSERT OR REPLACE INTO jfs_delslices(chunkid,deleted,slices) VALUES(?1,?2,?3)";
    del_delayed = "DELETE FROM jfs_delslices WHERE chunkid=?1 AND deleted=?2";
    delayed = "SELECT chunkid,deleted,CAST(slices AS BLOB) FROM jfs_delslices LIMIT ?1";

    get_counter = "SELECT value FROM jfs_counter WHERE name=?1";
    add_counter = "INSERT INTO jfs_counter(name,value) VALUES(?1,?2) \
        ON CONFLICT(name) DO UPDATE SET value=$ADD(value,excluded.value) RETURNING value";
    // Numbers that are handed out: what is damaged stays so.
    take_number = "INSERT INTO jfs_counter(name,value) VALUES(?1,?2) \
        ON CONFLICT(name) DO UPDATE SET value=value+?2 \
        WHERE typeof(value)='integer' AND value>=0 AND value<=9223372036854775807-?2 RETURNING value";
    pass_numbers = "UPDATE jfs_counter SET value=?2 WHERE name=?1";
    used_slice = "SELECT max(chunkid) FROM jfs_chunk_ref WHERE chunkid>=?1 AND chunkid<?2";
    init_counter = "INSERT OR IGNORE INTO jfs_counter(name,value) VALUES(?1,?2)";
    // ?2 is the count, ?3 the first number ever.
    allocate = "INSERT INTO jfs_counter(name,value) VALUES(?1,?3+?2) \
        ON CONFLICT(name) DO UPDATE SET value=max(value,?3)+?2 \
        WHERE typeof(value)='integer' AND value>=0 AND value<=9223372036854775807-?2 RETURNING value";
    // ?2 is now, ?3 the newest stamp of the past that may be replaced, ?4 the newest of the future that may not.
    claim = "INSERT INTO jfs_counter(name,value) VALUES(?1,?2) \
        ON CONFLICT(name) DO UPDATE SET value=excluded.value WHERE value<=?3 OR value>?4";

    put_delfile = "INSERT OR REPLACE INTO jfs_delfile(inode,length,expire) VALUES(?1,?2,?3)";
    del_delfile = "DELETE FROM jfs_delfile WHERE inode=?1";
    delfiles = "SELECT inode,length,expire FROM jfs_delfile WHERE expire<=?1 LIMIT ?2";
    put_detached = "INSERT OR REPLACE INTO jfs_detached_node(inode,added) VALUES(?1,?2)";
    del_detached = "DELETE FROM jfs_detached_node WHERE inode=?1";
    detached = "SELECT inode FROM jfs_detached_node WHERE added<=?1 LIMIT ?2";
    put_sustained = "INSERT OR IGNORE INTO jfs_sustained(sid,inode) VALUES(?1,?2)";
    del_sustained = "DELETE FROM jfs_sustained WHERE sid=?1 AND inode=?2";
    sustained = "SELECT inode FROM jfs_sustained WHERE sid=?1 LIMIT ?2";

    get_dir_stat = "SELECT data_length,used_space,used_inodes FROM jfs_dir_stats WHERE inode=?1";
    put_dir_stat = "INSERT OR REPLACE INTO jfs_dir_stats(inode,data_length,used_space,used_inodes) VALUES(?1,?2,?3,?4)";
    add_dir_stat = "UPDATE jfs_dir_stats SET data_length=$ADD(data_length,?2),used_space=$ADD(used_space,?3),\
        used_inodes=$ADD(used_inodes,?4) WHERE inode=?1";
    del_dir_stat = "DELETE FROM jfs_dir_stats WHERE inode=?1";
    drop_dir_stats = "DELETE FROM jfs_dir_stats";

    get_dir_quota = "SELECT max_space,max_inodes,used_space,used_inodes FROM jfs_dir_quota WHERE inode=?1";
    limit_dir_quota = "INSERT INTO jfs_dir_quota(inode,max_space,max_inodes,used_space,used_inodes) \
        VALUES(?1,?2,?3,0,0) ON CONFLICT(inode) DO UPDATE SET max_space=excluded.max_space,max_inodes=excluded.max_inodes";
    set_dir_quota = "UPDATE jfs_dir_quota SET used_space=?2,used_inodes=?3 WHERE inode=?1";
    add_dir_quota = "UPDATE jfs_dir_quota SET used_space=$ADD(used_space,?2),used_inodes=$ADD(used_inodes,?3) WHERE inode=?1";
    del_dir_quota = "DELETE FROM jfs_dir_quota WHERE inode=?1";
    dir_quotas = "SELECT inode,max_space,max_inodes,used_space,used_inodes FROM jfs_dir_quota LIMIT ?1";
    get_quota = "SELECT max_space,max_inodes,used_space,used_inodes FROM jfs_user_group_quota WHERE qtype=?1 AND qkey=?2";
    limit_quota = "INSERT INTO jfs_user_group_quota(qtype,qkey,max_space,max_inodes,used_space,used_inodes) \
        VALUES(?1,?2,?3,?4,0,0) ON CONFLICT(qtype,qkey) DO UPDATE SET max_space=excluded.max_space,\
        max_inodes=excluded.max_inodes";
    set_quota = "UPDATE jfs_user_group_quota SET used_space=?3,used_inodes=?4 WHERE qtype=?1 AND qkey=?2";
    add_quota = "INSERT INTO jfs_user_group_quota(qtype,qkey,max_space,max_inodes,used_space,used_inodes) \
        VALUES(?1,?2,-1,-1,?3,?4) ON CONFLICT(qtype,qkey) DO UPDATE SET used_space=$ADD(used_space,excluded.used_space),\
        used_inodes=$ADD(used_inodes,excluded.used_inodes)";
    del_quota = "DELETE FROM jfs_user_group_quota WHERE qtype=?1 AND qkey=?2";
    drop_quotas = "DELETE FROM jfs_user_group_quota";
    quotas = "SELECT qtype,qkey,max_space,max_inodes,used_space,used_inodes FROM jfs_user_group_quota \
        ORDER BY qtype,qkey LIMIT ?1";

    // One byte more than a document may have (`Settings::parse`).
    get_setting = "SELECT substr(CAST(value AS BLOB),1,1048577) FROM jfs_setting WHERE name='format'";
    put_setting = "INSERT INTO jfs_setting(name,value) VALUES('format',?1) \
        ON CONFLICT(name) DO UPDATE SET value=excluded.value";
    del_setting = "DELETE FROM jfs_setting WHERE name='format'";

    get_session = "SELECT 1 FROM jfs_session2 WHERE sid=?1";
    put_session = "INSERT INTO jfs_session2(sid,expire,info) VALUES(?1,?2,?3) \
        ON CONFLICT(sid) DO UPDATE SET expire=excluded.expire,info=excluded.info";
    del_session = "DELETE FROM jfs_session2 WHERE sid=?1";
    sessions = "SELECT sid,expire,CAST(info AS BLOB) FROM jfs_session2 ORDER BY sid LIMIT ?1";
    stale_sessions = "SELECT sid,expire,CAST(info AS BLOB) FROM jfs_session2 WHERE expire<=?1 ORDER BY sid LIMIT ?2";

    get_acl = "SELECT owner,`group`,mask,other,CAST(named_users AS BLOB),CAST(named_groups AS BLOB) \
        FROM jfs_acl WHERE id=?1";
    put_acl = "INSERT OR REPLACE INTO jfs_acl(id,owner,`group`,mask,other,named_users,named_groups) \
        VALUES(?1,?2,?3,?4,?5,?6,?7)";
    max_acl = "SELECT coalesce(max(id),0) FROM jfs_acl";

    has_flock = "SELECT 1 FROM jfs_flock WHERE inode=?1 AND sid=?2 AND owner=?3";
    has_plock = "SELECT 1 FROM jfs_plock WHERE inode=?1 AND sid=?2 AND owner=?3";
    get_flocks = "SELECT sid,owner,ltype FROM jfs_flock WHERE inode=?1";
    put_flock = "INSERT INTO jfs_flock(inode,sid,owner,ltype) VALUES(?1,?2,?3,?4) \
        ON CONFLICT(inode,sid,owner) DO UPDATE SET ltype=excluded.ltype";
    del_flock = "DELETE FROM jfs_flock WHERE inode=?1 AND sid=?2 AND owner=?3";
    get_plocks = "SELECT sid,owner,CAST(records AS BLOB) FROM jfs_plock WHERE inode=?1";
    put_plock = "INSERT INTO jfs_plock(inode,sid,owner,records) VALUES(?1,?2,?3,?4) \
        ON CONFLICT(inode,sid,owner) DO UPDATE SET records=excluded.records";
    del_plock = "DELETE FROM jfs_plock WHERE inode=?1 AND sid=?2 AND owner=?3";
    locked = "SELECT inode FROM jfs_flock WHERE sid=?1 UNION SELECT inode FROM jfs_plock WHERE sid=?1 LIMIT ?2";
}
