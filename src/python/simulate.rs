//! Traces for `python -m moka_py simulate`, which reads and prints.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::python::moka::convert;
use crate::python::runtime::shutdown;
use crate::{Column, Limits, Lines, Method, Trace, Unreadable};

#[pyclass(module = "moka_py", name = "_Trace")]
pub(crate) struct Accesses {
    trace: Trace,
    keys: Keys,
}

enum Keys {
    Lines(Lines),
    Column(Box<Column>),
}

impl From<Unreadable> for PyErr {
    fn from(unreadable: Unreadable) -> PyErr {
        PyValueError::new_err(unreadable.to_string())
    }
}

#[pymethods]
impl Accesses {
    #[new]
    #[pyo3(signature = (*, column, most_keys, exact))]
    fn new(column: Option<Vec<u8>>, most_keys: Option<usize>, exact: bool) -> Self {
        let limits = match most_keys {
            _ if exact => Limits::EXACT,
            Some(keys) => Limits::of_keys(keys),
            None => Limits::default(),
        };
        let keys = column
            .map_or_else(|| Keys::Lines(Lines::default()), |name| Keys::Column(Box::new(Column::new(name))));
        Accesses { trace: Trace::new(limits), keys }
    }

    /// Takes in the keys of a chunk of text.
    fn feed(&mut self, chunk: &[u8]) -> PyResult<()> {
        match &mut self.keys {
            Keys::Lines(lines) => lines.feed(chunk, &mut self.trace)?,
            Keys::Column(column) => column.feed(chunk, &mut self.trace)?,
        }
        Ok(())
    }

    /// Takes in what is left, once the text has ended.
    fn end(&mut self) -> PyResult<()> {
        match &mut self.keys {
            Keys::Lines(lines) => lines.end(&mut self.trace),
            Keys::Column(column) => column.end(&mut self.trace)?,
        }
        Ok(())
    }

    /// The hits in percent at a capacity.
    fn hit_ratio(&self, py: Python<'_>, method: &Bound<'_, PyAny>, capacity: u64) -> PyResult<Option<f64>> {
        let method = match method.extract::<&str>() {
            Ok("optimum") => Method::Optimum,
            _ => Method::Policy(convert::policy(method)?),
        };
        // Nothing is held here, so other threads may go on, and signals be seen to.
        let pause = || {
            shutdown::wait_detached(py, &|| ());
            py.check_signals()
        };
        Ok(self.trace.hit_ratio(method, capacity, pause)?.map(|ratio| 100.0 * ratio))
    }

    /// The accesses, also those outside of the sample.
    #[getter]
    fn accesses(&self) -> u64 {
        self.trace.total()
    }

    /// The accesses in the sample.
    #[getter]
    fn kept_accesses(&self) -> usize {
        self.trace.accesses().len()
    }

    /// The different keys; where it is sampled, about as many.
    #[getter]
    fn distinct(&self) -> u64 {
        self.trace.distinct()
    }

    /// The different keys in the sample.
    #[getter]
    fn kept_keys(&self) -> usize {
        self.trace.kept_keys()
    }

    /// The empty lines, or rows without a key.
    #[getter]
    fn empty(&self) -> u64 {
        match &self.keys {
            Keys::Lines(lines) => lines.empty,
            Keys::Column(column) => column.empty,
        }
    }

    /// The part of the keys that is in the sample: 1.0, or less where it is sampled.
    #[getter]
    fn rate(&self) -> f64 {
        self.trace.rate()
    }

    /// The least capacity of which it can tell the hit ratio.
    #[getter]
    fn least_capacity(&self) -> u64 {
        self.trace.least_capacity()
    }
}
