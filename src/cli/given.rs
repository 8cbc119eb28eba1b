//! Which flags of a group were given, as opposed to left at their defaults.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, Id};
use std::ops::Deref;

/// Arguments, and which of them were given.
#[derive(Debug)]
pub(crate) struct Given<T> {
    arguments: T,
    flags: Vec<String>,
}

impl<T> Given<T> {
    /// The flags given on the command line or by the file of options, as `--name`, in the order of their declaration.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(String::as_str)
    }
}

impl<T> Deref for Given<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.arguments
    }
}

/// The arguments that a struct declares, those of its parts included.
pub(crate) fn declared<T: Args>() -> Vec<Arg> {
    T::augment_args(Command::new("")).get_arguments().cloned().collect()
}

/// Their ids.
pub(crate) fn ids<T: Args>() -> impl Iterator<Item = Id> {
    declared::<T>().into_iter().map(|arg| arg.get_id().clone())
}

impl<T: Args> Args for Given<T> {
    fn augment_args(command: Command) -> Command {
        T::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }

    fn group_id() -> Option<Id> {
        T::group_id()
    }
}

impl<T: Args> FromArgMatches for Given<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self { flags: given::<T>(matches), arguments: T::from_arg_matches(matches)? })
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        // Before the values are taken out.
        let flags = given::<T>(matches);
        Ok(Self { flags, arguments: T::from_arg_matches_mut(matches)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.flags = given::<T>(matches);
        self.arguments.update_from_arg_matches(matches)
    }
}

fn given<T: Args>(matches: &ArgMatches) -> Vec<String> {
    let is_given = |arg: &Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let given = declared::<T>().into_iter().filter(is_given);
    given.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect()
}
