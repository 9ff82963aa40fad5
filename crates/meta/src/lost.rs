//! Attempts whose replies were lost: found applied, or kept from arriving after the next one.

use crate::error::Result;
use crate::known::Known;
use crate::proof::Proof;
use crate::run::Ran;
use crate::store::{Guard, Read, StoreError, Value};
use crate::volume::Meta;

/// An attempt whose reply was lost.
pub(crate) struct Lost<T> {
    /// How to recognise it if it was applied.
    pub(crate) proof: Proof,
    /// What it would have answered.
    pub(crate) value: T,
    /// What later attempts require to be as it was when this one was looked for in vain.
    pub(crate) pin: Vec<Guard>,
}

impl Known {
    /// What was fetched of all that the proofs look at.
    pub(crate) fn answers<T>(&self, lost: &[Lost<T>]) -> Vec<Vec<Value>> {
        lost.iter().map(|l| l.proof.reads().iter().filter_map(|read| self.value(read)).collect()).collect()
    }
}

impl Meta {
    /// The result of the attempt that was applied although its reply was lost, if one was, and what the proofs look at.
    pub(crate) async fn look_for<T>(
        &self,
        lost: &mut Vec<Lost<T>>,
    ) -> Result<(Option<Ran<T>>, Vec<Vec<Value>>)> {
        if lost.is_empty() {
            return Ok((None, Vec::new()));
        }
        let reads: Vec<Vec<Read>> = lost.iter().map(|l| l.proof.reads()).collect();
        let mut values = self.read(&reads.concat()).await?.into_iter();
        let values: Vec<Vec<Value>> = reads.iter().map(|r| values.by_ref().take(r.len()).collect()).collect();
        Ok((self.applied(lost, &values), values))
    }

    /// The result of the attempt that the answers to the proofs show. The youngest counts: what shows an older one may be its
    /// work.
    pub(crate) fn applied<T>(&self, lost: &mut Vec<Lost<T>>, values: &[Vec<Value>]) -> Option<Ran<T>> {
        let found = lost.iter().zip(values).rposition(|(l, values)| l.proof.shows(values))?;
        // What else it changed is not known.
        self.beliefs.clear();
        Some(Ran { value: lost.remove(found).value, outputs: Vec::new() })
    }
}

/// Later attempts require that none of these is applied any more, as far as a guard can say so.
pub(crate) fn pin<T>(lost: &mut [Lost<T>], values: Vec<Vec<Value>>) -> Result<()> {
    for (l, values) in lost.iter_mut().zip(values) {
        let new = l.proof.pin(values)?;
        follow(&l.pin, &new)?;
        l.pin = new;
    }
    Ok(())
}

/// A list that only grew can be told from one that holds the lost records in another form; any other cannot.
fn follow(old: &[Guard], new: &[Guard]) -> Result<()> {
    for (old, new) in old.iter().zip(new) {
        if let (Guard::Slices { list: old, .. }, Guard::Slices { list: new, .. }) = (old, new)
            && !new.starts_with(old)
        {
            let why = "a reply was lost, and somebody rewrote the records before it could be found out";
            return Err(StoreError::ambiguous(why).into());
        }
    }
    Ok(())
}
