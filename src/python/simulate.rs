//! Traces for `python -m moka_py simulate`, which reads the files and prints the results.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::python::moka::convert;
use crate::python::runtime::shutdown;
use crate::{KeyLines, Limits, LineTooLong, Method, Trace};

#[pyclass(module = "moka_py", name = "_Trace")]
pub(crate) struct PyTrace {
    trace: Trace,
    lines: KeyLines,
}

impl From<LineTooLong> for PyErr {
    fn from(error: LineTooLong) -> PyErr {
        PyValueError::new_err(error.to_string())
    }
}

#[pymethods]
impl PyTrace {
    #[new]
    #[pyo3(signature = (*, max_keys, exact))]
    fn new(max_keys: Option<usize>, exact: bool) -> Self {
        let limits = match max_keys {
            _ if exact => Limits::EXACT,
            Some(keys) => Limits::of_keys(keys),
            None => Limits::default(),
        };
        PyTrace { trace: Trace::new(limits), lines: KeyLines::default() }
    }

    /// Records each line of a chunk of text as a key.
    fn feed_lines(&mut self, chunk: &[u8]) -> PyResult<()> {
        Ok(self.lines.feed(chunk, &mut self.trace)?)
    }

    /// Records the last line, once the text has ended.
    fn finish_lines(&mut self) {
        self.lines.finish(&mut self.trace);
    }

    /// Records each of the keys.
    fn feed_keys(&mut self, keys: &Bound<'_, PyList>) -> PyResult<()> {
        for key in keys {
            self.trace.record_key(key.cast::<PyBytes>()?.as_bytes());
        }
        Ok(())
    }

    /// Returns the hit ratio at a capacity, in percent.
    fn hit_ratio(&self, py: Python<'_>, method: &Bound<'_, PyAny>, capacity: u64) -> PyResult<Option<f64>> {
        let method = match method.extract::<&str>() {
            Ok("optimum") => Method::Optimum,
            _ => Method::Policy(convert::policy(method)?),
        };
        // No lock is held here, so other threads and signal handlers may run.
        let pause = || {
            shutdown::wait_detached(py, &|| ());
            py.check_signals()
        };
        Ok(self.trace.hit_ratio(method, capacity, pause)?.map(|ratio| 100.0 * ratio))
    }

    #[getter]
    fn accesses(&self) -> u64 {
        self.trace.access_count()
    }

    #[getter]
    fn sampled_accesses(&self) -> usize {
        self.trace.sampled_accesses().len()
    }

    #[getter]
    fn distinct_keys(&self) -> u64 {
        self.trace.distinct_keys()
    }

    #[getter]
    fn sampled_keys(&self) -> usize {
        self.trace.sampled_keys()
    }

    #[getter]
    fn empty_keys(&self) -> u64 {
        self.trace.empty_keys()
    }

    #[getter]
    fn sampling_rate(&self) -> f64 {
        self.trace.sampling_rate()
    }

    #[getter]
    fn min_capacity(&self) -> u64 {
        self.trace.min_capacity()
    }
}
