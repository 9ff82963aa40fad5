//! What a layer hands on.

/// The methods of [`ObjectStore`](crate::ObjectStore) that a layer hands on as they are, by name; it writes the others. Within an
/// `impl`, for a layer over one store, and for one that chooses a store by the key of the object:
///
/// ```ignore
/// forward! { |self| self.inner => describe, supports_range, device }
/// forward! { |self, key| self.shard(key) => get, head, delete }
/// ```
///
/// Names are listed, there is no "all others": the trait has default bodies only for what is built of its other methods, and so
/// does not get past a layer. Any new method is missing in every layer until somebody has decided there whether it is only handed
/// on. It needs a line here, too.
macro_rules! forward {
    (|$self:ident| $inner:expr => $($method:ident),+ $(,)?) => {
        $crate::forward::forward! { |$self, key| $inner => $($method),+ }
    };
    (|$self:ident, $key:ident| $inner:expr => $($method:ident),+ $(,)?) => {
        $($crate::forward::forward! { @$method $self $key $inner })+
    };
    (@describe $self:ident $key:ident $inner:expr) => {
        fn describe(&$self) -> String { $inner.describe() }
    };
    (@supports_range $self:ident $key:ident $inner:expr) => {
        fn supports_range(&$self) -> bool { $inner.supports_range() }
    };
    (@device $self:ident $key:ident $inner:expr) => {
        fn device(&$self) -> Option<u64> { $inner.device() }
    };
    (@put_in_tier $self:ident $key:ident $inner:expr) => {
        $crate::forward::forward! {
            @async $self $inner, put_in_tier['a]($key: &'a str, body: ::bytes::Bytes, tier: u8) -> ()
        }
    };
    (@put_new $self:ident $key:ident $inner:expr) => {
        $crate::forward::forward! {
            @async $self $inner, put_new['a]($key: &'a str, body: ::bytes::Bytes) -> bool
        }
    };
    (@get $self:ident $key:ident $inner:expr) => {
        $crate::forward::forward! {
            @async $self $inner, get['a]($key: &'a str, range: Option<::std::ops::Range<u64>>) -> ::bytes::Bytes
        }
    };
    (@get_whole $self:ident $key:ident $inner:expr) => {
        $crate::forward::forward! {
            @async $self $inner, get_whole['a]($key: &'a str, most: u64) -> ::bytes::Bytes
        }
    };
    (@head $self:ident $key:ident $inner:expr) => {
        $crate::forward::forward! { @async $self $inner, head['a]($key: &'a str) -> $crate::Meta }
    };
    (@delete $self:ident $key:ident $inner:expr) => {
        $crate::forward::forward! { @async $self $inner, delete['a]($key: &'a str) -> () }
    };
    (@list $self:ident $key:ident $inner:expr) => {
        $crate::forward::forward! {
            @async $self $inner,
            list['a, 'b](prefix: &'a str, start_after: &'b str, limit: usize) -> Vec<$crate::Entry>
        }
    };
    (@create_bucket $self:ident $key:ident $inner:expr) => {
        $crate::forward::forward! { @async $self $inner, create_bucket['a]($key: &'a str) -> () }
    };
    // What `async_trait` makes of an `async fn`: it does not look into macros.
    (@async $self:ident $inner:expr, $method:ident[$($life:lifetime),*]($($arg:ident: $is:ty),*) -> $answer:ty) => {
        fn $method<'s, $($life,)* 'f>(
            &'s $self,
            $($arg: $is),*
        ) -> ::std::pin::Pin<
            Box<dyn Future<Output = ::std::result::Result<$answer, $crate::ObjectError>> + Send + 'f>,
        >
        where
            's: 'f,
            $($life: 'f,)*
            Self: 'f,
        {
            Box::pin(async move { $inner.$method($($arg),*).await })
        }
    };
}

pub(crate) use forward;
