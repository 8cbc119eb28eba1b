//! Several processes that learn together, as threads.

#![allow(clippy::unwrap_used)]

use super::learning::learn;
use super::network::Network;
use crate::execute::tests::RandomNetwork;
use crate::report::LearningReport;
use crate::runtime::{PeerError, Peers, Runtime};
use crate::scheme::bit_plan::{ActivationBits, LayerPlan, WeightBits};
use crate::scheme::gradient_code::GradientCode;
use crate::solve::block::{Learning, Reach};
use crate::solve::gram::ClosedForm;
use crate::solve::layerwise::solve_layerwise;
use crate::solve::network::round_layers;
use crate::solve::{Rounded, SolveError};
use std::sync::{Arc, Barrier, Mutex};

/// Two layers of two buckets each, and one that is sent as floats.
const WIDE: &str = "(float[1,32] x) => (float[1,10] y)
    <float[32,32] a = {}, float[32,32] b = {}, float[32,10] c = {}>
    {
        [first] t0 = MatMul (x, a)
        t1 = Relu (t0)
        [second] t2 = MatMul (t1, b)
        t3 = Relu (t2)
        [head] y = MatMul (t3, c)
    }";

fn network(processes: usize, code: GradientCode) -> RandomNetwork {
    let activations = ActivationBits::Bits(2);
    let plan = LayerPlan { weights: WeightBits::whole(4), activations, ..LayerPlan::default() };
    let mut case = RandomNetwork::new(WIDE, 96, plan);
    (case.scheme.solve.solver_processes, case.scheme.solve.gradient_code) = (processes, code);
    case
}

/// What layers were solved to after they have learned, and the report.
fn learned(
    case: &RandomNetwork,
    reach: Reach,
    runtime: &Runtime,
) -> Result<(Vec<Rounded>, Option<LearningReport>), SolveError> {
    let (solver, learning) = (ClosedForm::default(), Learning { steps: 12, seconds: None, reach, rate: 0.01 });
    let mut observed = case.observed.clone();
    let mut solved = round_layers(&case.model, &case.scheme, &observed, &solver)?;
    solve_layerwise(&case.model, &case.scheme, &mut observed, &mut solved, &case.data, &solver, runtime)?;
    let network = Network { model: case.model.clone(), observed, solved };
    let Network { mut observed, mut solved, .. } = network;
    let now = (&mut observed, &mut solved);
    let report = learn((&case.model, &case.scores()), &case.scheme, now, &case.data, (&solver, learning), runtime)?;
    let layers = ["first", "second", "head"].map(|name| solved[name].clone());
    Ok((layers.to_vec(), report))
}

/// Threads that meet at each exchange.
struct Seat {
    rank: usize,
    messages: Arc<Mutex<Vec<Vec<u8>>>>,
    barrier: Arc<Barrier>,
}

impl Peers for Seat {
    fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn exchange(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>, PeerError> {
        self.messages.lock().unwrap()[self.rank] = message;
        self.barrier.wait();
        let all = self.messages.lock().unwrap().clone();
        self.barrier.wait();
        Ok(all)
    }
}

fn seats(count: usize) -> Vec<Seat> {
    let (messages, barrier) = (Arc::new(Mutex::new(vec![Vec::new(); count])), Arc::new(Barrier::new(count)));
    (0..count).map(|rank| Seat { rank, messages: messages.clone(), barrier: barrier.clone() }).collect()
}

#[test]
fn processes_learn_what_one_learns_that_computes_all_shares() {
    for (reach, code) in [
        (Reach::Block, GradientCode::OneBit),
        (Reach::Network, GradientCode::Float),
        (Reach::Network, GradientCode::Threshold(2.0)),
        (Reach::Network, GradientCode::Qsgd(4)),
    ] {
        let case = network(3, code);
        let (alone, report) = learned(&case, reach, &Runtime::with_threads(2)).unwrap();
        let report = report.unwrap();
        let together: Vec<_> = std::thread::scope(|scope| {
            let one = |seat: Seat| {
                let case = &case;
                scope.spawn(move || learned(case, reach, &Runtime::with_threads(1).peers(Arc::new(seat))).unwrap())
            };
            let running: Vec<_> = seats(3).into_iter().map(one).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (layers, other) in together {
            let other = other.unwrap();
            assert!(alone.iter().zip(&layers).all(|(one, other)| one.layer == other.layer), "{code}");
            assert_eq!(
                (other.exchanged_bytes, other.distance_with, other.taken),
                (report.exchanged_bytes, report.distance_with, report.taken),
                "{code}"
            );
        }
    }
}

#[test]
fn shares_of_floats_learn_nearly_what_whole_mini_batches_do() {
    let runtime = Runtime::with_threads(2);
    let error = |processes| {
        let (_, report) = learned(&network(processes, GradientCode::Float), Reach::Network, &runtime).unwrap();
        report.unwrap().distance_with.unwrap()
    };
    let (one, two) = (error(1), error(2));
    assert!((one - two).abs() < 0.05 * one, "{one} {two}");
}

#[test]
fn bytes_are_counted() {
    let runtime = Runtime::with_threads(2);
    let of = |processes, code| learned(&network(processes, code), Reach::Network, &runtime).unwrap().1.unwrap();
    let float = of(2, GradientCode::Float);
    assert!(float.steps >= 12 && float.exchanged_bytes == float.float_bytes);
    // Two messages each step, at first of all weights.
    assert!(float.exchanged_bytes > 2 * 12 * 4 * (1024 + 1024 + 320), "{}", float.exchanged_bytes);
    let signs = of(2, GradientCode::OneBit);
    assert_eq!((signs.steps, signs.float_bytes), (float.steps, float.float_bytes));
    assert!(5 * signs.exchanged_bytes < 2 * signs.float_bytes, "{}", signs.exchanged_bytes);
    assert_eq!(of(1, GradientCode::OneBit).exchanged_bytes, 0);
}

/// One of two processes, which never meets the other.
struct Broken(Exchanged);

/// What it gets for what it sends.
type Exchanged = fn(Vec<u8>) -> Result<Vec<Vec<u8>>, PeerError>;

impl Peers for Broken {
    fn count(&self) -> usize {
        2
    }

    fn rank(&self) -> usize {
        0
    }

    fn exchange(&self, message: Vec<u8>) -> Result<Vec<Vec<u8>>, PeerError> {
        self.0(message)
    }
}

/// An error of a peer ends the run, where others leave a block as it was.
#[test]
fn a_process_that_is_lost_or_computes_something_else_ends_the_run() {
    let failed = |processes, exchange| {
        let runtime = Runtime::with_threads(1).peers(Arc::new(Broken(exchange)));
        let case = network(processes, GradientCode::Float);
        learned(&case, Reach::Block, &runtime).map(|_| ()).unwrap_err().to_string()
    };
    let other = "process 1 of those that learn together does not compute the same as process 0";
    // Other parameters, a message that is cut off, and none.
    let parameters = |message: Vec<u8>| {
        let mut other = message.clone();
        other[0] ^= 1;
        Ok(vec![message, other])
    };
    assert_eq!(failed(2, parameters), other);
    assert_eq!(failed(2, |message| Ok(vec![message.clone(), message[1..].to_vec()])), other);
    assert_eq!(failed(2, |message| Ok(vec![message.clone(), [&message[..], &[0]].concat()])), other);
    assert_eq!(failed(2, |message| Ok(vec![message])), other);
    let lost = |_| Err(PeerError::Lost { rank: 1, reason: "signal: 9".to_owned() });
    assert_eq!(failed(2, lost), "process 1 of those that learn together has ended: signal: 9");
    let count = "2 processes learn together, not 3 (option `solver-processes`)";
    assert_eq!(failed(3, |message| Ok(vec![message])), count);
}
