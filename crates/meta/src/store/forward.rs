//! What a store in front of another hands on.

/// The methods of [`Store`](crate::store::Store) that a store in front of another one hands on as they are, by name; it writes
/// the others. Within an `impl`:
///
/// ```ignore
/// ciderfs_meta::forward_store! { |self| self.inner => engine, lists_in_order, describe, turns }
/// ```
///
/// Names are listed, there is no "all others": the trait has a default body for none of its methods, so that a new one is
/// missing in every store in front of another until somebody has decided there whether it is only handed on. It needs a line
/// here, too.
#[macro_export]
macro_rules! forward_store {
    (|$self:ident| $inner:expr => $($method:ident),+ $(,)?) => {
        $($crate::forward_store! { @$method $self $inner })+
    };
    (@engine $self:ident $inner:expr) => {
        fn engine(&$self) -> &'static str { $inner.engine() }
    };
    (@lists_in_order $self:ident $inner:expr) => {
        fn lists_in_order(&$self) -> bool { $inner.lists_in_order() }
    };
    (@describe $self:ident $inner:expr) => {
        fn describe(&$self) -> String { $inner.describe() }
    };
    (@turns $self:ident $inner:expr) => {
        fn turns(&$self) -> u64 { $inner.turns() }
    };
    (@read $self:ident $inner:expr) => {
        $crate::forward_store! {
            @async $self $inner, read['a](reads: &'a [$crate::store::Read]) -> Vec<$crate::store::Value>
        }
    };
    (@commit $self:ident $inner:expr) => {
        $crate::forward_store! {
            @async $self $inner, commit['a](commit: &'a $crate::store::Commit) -> $crate::store::Outcome
        }
    };
    (@list_dir $self:ident $inner:expr) => {
        $crate::forward_store! {
            @async $self $inner,
            list_dir['a](dir: ::ciderfs_format::Ino, cursor: &'a $crate::store::DirCursor, limit: usize, attrs: bool)
                -> (Vec<$crate::store::DirEntry>, $crate::store::DirCursor)
        }
    };
    (@allocate $self:ident $inner:expr) => {
        $crate::forward_store! {
            @async $self $inner, allocate[](counter: $crate::store::Counter, count: u64) -> ::std::ops::Range<u64>
        }
    };
    (@claim $self:ident $inner:expr) => {
        $crate::forward_store! {
            @async $self $inner, claim[](job: $crate::store::Job, now: i64, min_interval: i64) -> bool
        }
    };
    (@scan $self:ident $inner:expr) => {
        $crate::forward_store! {
            @async $self $inner, scan['a](scan: &'a $crate::store::Scan, limit: usize) -> Vec<$crate::store::Scanned>
        }
    };
    (@create_schema $self:ident $inner:expr) => {
        $crate::forward_store! { @async $self $inner, create_schema[]() -> () }
    };
    (@now $self:ident $inner:expr) => {
        $crate::forward_store! { @async $self $inner, now[]() -> Option<i64> }
    };
    (@memory $self:ident $inner:expr) => {
        $crate::forward_store! { @async $self $inner, memory[]() -> Option<$crate::store::EngineMemory> }
    };
    // What `async_trait` makes of an `async fn`: it does not look into macros.
    (@async $self:ident $inner:expr, $method:ident[$($life:lifetime)?]($($arg:ident: $is:ty),*) -> $answer:ty) => {
        fn $method<'s, $($life,)? 'f>(
            &'s $self,
            $($arg: $is),*
        ) -> ::std::pin::Pin<
            Box<dyn Future<Output = ::std::result::Result<$answer, $crate::store::StoreError>> + Send + 'f>,
        >
        where
            's: 'f,
            $($life: 'f,)?
            Self: 'f,
        {
            Box::pin(async move { $inner.$method($($arg),*).await })
        }
    };
}
