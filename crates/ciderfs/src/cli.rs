//! The command line: what there is ([`command`], [`table`]), how it is read ([`parse`], [`args`], [`secrets`]), and how it is
//! described ([`help`], [`completions`], [`manual`]).

pub mod args;
pub mod cache_dirs;
pub mod command;
pub mod completions;
pub mod flag;
pub mod help;
pub mod manual;
pub mod nearest;
pub mod parse;
pub mod places;
pub mod secrets;
pub mod table;
pub mod values;
