use super::*;

/// A small generator of its own, so that the cases stay what they are.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in the logarithm.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.unit())
    }
}

/// Small whole numbers, with many ties and dominated choices.
fn coarse(r: &mut Random) -> Problem {
    let layers = (0..=r.below(5)).map(|_| Layer {
        choices: (0..=r.below(4)).map(|_| Choice { cost: r.below(12) as f64 - 2.0, budget: r.below(9) }).collect(),
    });
    Problem::new(layers.collect(), r.below(3)).unwrap()
}

/// Damages from 1e-9 to 10 and budgets up to 1e8, without order.
fn wide(r: &mut Random) -> Problem {
    let layers = (0..=r.below(5)).map(|_| Layer {
        choices: (0..=r.below(4))
            .map(|_| Choice { cost: r.between(1e-9, 10.0), budget: r.between(1.0, 1e8) as u64 })
            .collect(),
    });
    Problem::new(layers.collect(), r.below(1000)).unwrap()
}

/// A network: bits 2 to 9 of layers of very different sizes, damage about 4^-bits.
fn network(r: &mut Random, layers: usize) -> Problem {
    let layers = (0..layers).map(|_| {
        let (weights, harm) = (r.between(100.0, 1e7), r.between(1e-4, 10.0));
        let choice = |bits: i32| Choice {
            cost: harm * 0.25f64.powi(bits) * (0.5 + r.unit()),
            budget: (weights * f64::from(bits) / 8.0) as u64 + r.below(64),
        };
        Layer { choices: (2..10).map(choice).collect() }
    });
    Problem::new(layers.collect(), 12_345).unwrap()
}

fn plans(problem: &Problem) -> Vec<Plan> {
    problem.layers().iter().fold(vec![Vec::new()], |plans, layer| {
        let extended = plans.iter().flat_map(|plan| (0..layer.choices.len()).map(move |j| [&plan[..], &[j]].concat()));
        extended.collect()
    })
}

fn least<'a>(problem: &Problem, plans: impl Iterator<Item = &'a Plan>) -> Option<f64> {
    plans.map(|plan| problem.damage(plan)).min_by(f64::total_cmp)
}

/// A limit between a little less than the smallest total and a little more than the largest.
fn limit(r: &mut Random, totals: impl Iterator<Item = u64> + Clone) -> u64 {
    let (low, high) = (totals.clone().min().unwrap_or(0), totals.max().unwrap_or(0));
    let margin = (high - low) / 8 + 1;
    (low + r.below(high - low + 2 * margin)).saturating_sub(margin)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-8 * a.abs().max(b.abs())
}

/// Whether an allocation is what it says.
fn honest(problem: &Problem, found: &Allocation) -> bool {
    found.damage == problem.damage(&found.plan) && found.budget == problem.budget(&found.plan)
}

#[test]
fn both_solvers_agree_with_brute_force() {
    let mut r = Random(1);
    let (mut solved, mut refused) = (0, 0);
    for case in 0..600 {
        let problem = if case % 2 == 0 { coarse(&mut r) } else { wide(&mut r) };
        let all = plans(&problem);
        let limit = limit(&mut r, all.iter().map(|plan| problem.budget(plan)));
        let best = least(&problem, all.iter().filter(|plan| problem.budget(plan) <= limit));
        for found in [dynamic_programming(&problem, limit, DEFAULT_STATES), ilp(&problem, limit, None)] {
            let (Some(best), Ok(found)) = (best, &found) else {
                let smallest = all.iter().map(|plan| problem.budget(plan)).min().unwrap();
                assert_eq!(best, None, "case {case}");
                assert_eq!(found, Err(AllocateError::Infeasible { limit, smallest }), "case {case}");
                refused += 1;
                continue;
            };
            assert!(honest(&problem, found) && found.budget <= limit && found.proven, "case {case}: {found:?}");
            assert!(close(found.damage, best), "case {case}: {} is not {best}", found.damage);
            solved += 1;
        }
    }
    assert!(solved > 800 && refused > 50, "{solved} {refused}");
}

#[test]
fn one_unit_too_much_is_too_much() {
    let mut r = Random(8);
    for case in 0..200 {
        // Totals that differ by a few units in 10^13: far below the solver's tolerance.
        let layers = (0..5).map(|_| Layer {
            choices: (0..3u64)
                .map(|j| Choice { cost: 3.0 - j as f64 + r.unit(), budget: j * 1_000_000_000_000 + r.below(9) })
                .collect(),
        });
        let problem = Problem::new(layers.collect(), 0).unwrap();
        let all = plans(&problem);
        let limit = problem.budget(&all[r.below(all.len() as u64) as usize]).max(problem.smallest() + 1) - 1;
        let best = least(&problem, all.iter().filter(|plan| problem.budget(plan) <= limit)).unwrap();
        let program = ilp(&problem, limit, None).unwrap();
        assert!(program.budget <= limit, "case {case}: {} in {limit}", program.budget);
        assert!(close(program.damage, best), "case {case}: {} is not {best}", program.damage);
    }
}

#[test]
fn the_program_meets_two_budgets() {
    let mut r = Random(2);
    let (mut solved, mut together) = (0, 0);
    for case in 0..600 {
        let problem = if case % 2 == 0 { coarse(&mut r) } else { wide(&mut r) };
        let scale = if case % 2 == 0 { 9.0 } else { 1e8 };
        let mut budget = |layer: &Layer| layer.choices.iter().map(|_| r.between(1.0, scale) as u64).collect();
        let budgets: Vec<Vec<u64>> = problem.layers().iter().map(&mut budget).collect();
        let total = |plan: &Plan| 7 + budgets.iter().zip(plan).map(|(b, &j)| b[j]).sum::<u64>();
        let all = plans(&problem);
        let limit = limit(&mut r, all.iter().map(|plan| problem.budget(plan)));
        let other = super::tests::limit(&mut r, all.iter().map(total));
        let second = SecondBudget { budgets: budgets.clone(), fixed: 7, limit: other };
        let best = least(&problem, all.iter().filter(|plan| problem.budget(plan) <= limit && total(plan) <= other));
        match (best, ilp(&problem, limit, Some(&second))) {
            (Some(best), Ok(found)) => {
                assert!(honest(&problem, &found) && found.proven, "case {case}: {found:?}");
                assert!(found.budget <= limit && total(&found.plan) <= other, "case {case}");
                assert!(close(found.damage, best), "case {case}: {} is not {best}", found.damage);
                solved += 1;
            }
            (None, Err(AllocateError::TogetherInfeasible { smallest, .. })) => {
                assert!(smallest[0] <= limit && smallest[1] <= other, "case {case}");
                together += 1;
            }
            (None, Err(AllocateError::Infeasible { smallest, .. })) => assert!(smallest > limit, "case {case}"),
            (None, Err(AllocateError::SecondInfeasible { smallest, .. })) => assert!(smallest > other, "case {case}"),
            (best, found) => panic!("case {case}: {best:?} but {found:?}"),
        }
    }
    assert!(solved > 300 && together > 20, "{solved} {together}");
}

#[test]
fn the_path_is_the_lower_hull_of_all_plans() {
    let mut r = Random(3);
    for case in 0..300 {
        let problem = if case % 2 == 0 { coarse(&mut r) } else { wide(&mut r) };
        let path = greedy(&problem);
        assert!(path.iter().all(|step| honest(&problem, step)));
        assert!(path.windows(2).all(|w| w[1].budget < w[0].budget && w[1].damage >= w[0].damage), "case {case}");
        let slopes: Vec<f64> =
            path.windows(2).map(|w| (w[1].damage - w[0].damage) / (w[0].budget - w[1].budget) as f64).collect();
        assert!(slopes.windows(2).all(|w| w[0] <= w[1] * (1.0 + 1e-6) + 1e-15), "case {case}: {slopes:?}");
        let all = plans(&problem);
        let smallest = all.iter().map(|plan| problem.budget(plan)).min();
        assert_eq!(path.first().map(|p| p.damage), least(&problem, all.iter()), "case {case}");
        assert_eq!(path.last().map(|p| p.budget), smallest, "case {case}");
        for plan in &all {
            // No plan lies below the edge of the path over its budget.
            let (budget, damage) = (problem.budget(plan), problem.damage(plan));
            let Some(edge) = path.windows(2).find(|w| w[1].budget <= budget && budget <= w[0].budget) else { continue };
            let share = (budget - edge[1].budget) as f64 / (edge[0].budget - edge[1].budget) as f64;
            let line = edge[1].damage + share * (edge[0].damage - edge[1].damage);
            assert!(damage >= line - 1e-12 * edge[1].damage.abs(), "case {case}: {damage} below {line}");
        }
    }
}

fn layer(choices: &[(f64, u64)]) -> Layer {
    Layer { choices: choices.iter().map(|&(cost, budget)| Choice { cost, budget }).collect() }
}

#[test]
fn ties_go_to_the_larger_saving_and_the_later_layer() {
    let layers = vec![layer(&[(0.0, 4), (1.0, 2)]), layer(&[(0.0, 8), (2.0, 4)]), layer(&[(0.0, 4), (1.0, 2)])];
    let path = greedy(&Problem::new(layers, 0).unwrap());
    let plans: Vec<&[usize]> = path.iter().map(|p| &p.plan[..]).collect();
    assert_eq!(plans, [&[0, 0, 0][..], &[0, 1, 0], &[0, 1, 1], &[1, 1, 1]]);
}

#[test]
fn what_is_dominated_or_above_the_hull_is_not_on_the_path() {
    // Choice 2 costs as much as choice 1 and is larger, 3 lies above the line from 1 to 4.
    let layers = vec![layer(&[(0.5, 20), (0.0, 10), (0.0, 12), (3.0, 8), (4.0, 2)])];
    let path = greedy(&Problem::new(layers, 0).unwrap());
    assert_eq!(path.iter().map(|p| p.plan[0]).collect::<Vec<_>>(), [1, 4]);
}

#[test]
fn nothing_to_choose_is_a_plan() {
    let empty = Problem::new(Vec::new(), 5).unwrap();
    let nothing = Allocation { plan: Vec::new(), damage: 0.0, budget: 5, proven: true };
    assert_eq!(greedy(&empty), std::slice::from_ref(&nothing));
    assert_eq!(dynamic_programming(&empty, 5, DEFAULT_STATES), Ok(nothing.clone()));
    assert_eq!(ilp(&empty, 5, None), Ok(nothing));
    assert_eq!(ilp(&empty, 4, None), Err(AllocateError::Infeasible { limit: 4, smallest: 5 }));
    assert_eq!(swaps(&empty, &[], 5), []);
}

#[test]
fn one_layer_takes_the_best_that_fits() {
    let problem = Problem::new(vec![layer(&[(3.0, 2), (1.0, 6), (2.5, 4), (0.0, 8)])], 1).unwrap();
    for (limit, choice) in [(3, 0), (4, 0), (5, 2), (6, 2), (7, 1), (8, 1), (9, 3), (100, 3)] {
        assert_eq!(dynamic_programming(&problem, limit, DEFAULT_STATES).unwrap().plan, [choice], "{limit}");
        assert_eq!(ilp(&problem, limit, None).unwrap().plan, [choice], "{limit}");
    }
}

#[test]
fn networks_are_solved_alike_and_better_than_by_the_path() {
    let mut r = Random(4);
    for layers in [20, 60] {
        let problem = network(&mut r, layers);
        let path = greedy(&problem);
        let largest = path[0].budget;
        for tenth in [3, 4, 6, 9] {
            let limit = largest / 10 * tenth;
            let exact = dynamic_programming(&problem, limit, DEFAULT_STATES).unwrap();
            let program = ilp(&problem, limit, None).unwrap();
            assert!(exact.budget <= limit && program.budget <= limit);
            assert!(program.proven && (exact.proven || layers > 20), "{layers} {tenth}: {exact:?} {program:?}");
            let (damage, least) = (exact.damage, program.damage);
            assert!(close(damage, least) || (!exact.proven && damage <= least * 1.0001), "{layers} {tenth}");
            let fits = path.iter().find(|p| p.budget <= limit).unwrap();
            assert!(damage < fits.damage && least < fits.damage, "{layers} {tenth}");
        }
    }
}

#[test]
fn the_tighter_of_two_like_budgets_binds() {
    let mut r = Random(9);
    for case in 0..10 {
        let problem = network(&mut r, 20);
        let (low, high) = (problem.smallest(), greedy(&problem)[0].budget);
        let (loose, tight) = (low + (high - low) / 2, low + r.below((high - low) / 3));
        let budgets = problem.layers().iter().map(|l| l.choices.iter().map(|c| 3 * c.budget).collect());
        let second = SecondBudget { budgets: budgets.collect(), fixed: 0, limit: 3 * (tight - problem.fixed()) };
        let alone = ilp(&problem, tight, None).unwrap();
        let both = ilp(&problem, loose, Some(&second)).unwrap();
        assert!(both.proven && both.budget <= tight, "case {case}");
        assert!(close(both.damage, alone.damage), "case {case}: {} is not {}", both.damage, alone.damage);
    }
}

#[test]
fn short_lists_still_give_plans_that_fit() {
    let mut r = Random(5);
    let mut worse = 0;
    for case in 0..200 {
        let problem = if case % 2 == 0 { wide(&mut r) } else { network(&mut r, 12) };
        let (low, high) = (problem.smallest(), greedy(&problem)[0].budget);
        let limit = low + r.below(high - low + 1);
        let exact = dynamic_programming(&problem, limit, DEFAULT_STATES).unwrap();
        let short = dynamic_programming(&problem, limit, 2 + r.below(6) as usize).unwrap();
        assert!(exact.proven && honest(&problem, &short) && short.budget <= limit, "case {case}");
        assert!(short.damage >= exact.damage * (1.0 - 1e-12), "case {case}");
        assert!(!short.proven || close(short.damage, exact.damage), "case {case}");
        worse += usize::from(short.damage > exact.damage);
    }
    assert!(worse > 0, "no list was ever too short");
}

#[test]
fn bad_numbers_are_refused() {
    assert_eq!(Problem::new(vec![layer(&[])], 0), Err(AllocateError::NoChoice { layer: 0 }));
    assert_eq!(Problem::new(vec![layer(&[(0.0, u64::MAX)])], 1), Err(AllocateError::Overflow));
    let nan = Problem::new(vec![layer(&[(0.0, 1)]), layer(&[(0.0, 1), (f64::NAN, 1)])], 0).unwrap_err();
    assert_eq!(nan.to_string(), "layer 1, choice 1: the damage is NaN");
    let problem = Problem::new(vec![layer(&[(0.0, 1)])], 2).unwrap();
    let second = |budgets, limit| SecondBudget { budgets, fixed: 1, limit };
    let refused = |second| ilp(&problem, 9, Some(&second)).unwrap_err().to_string();
    assert!(refused(second(vec![], 9)).starts_with("layer 0: the second budget does not fit"));
    assert!(refused(second(vec![vec![1], vec![1]], 9)).starts_with("layer 1:"));
    assert!(refused(second(vec![vec![5]], 3)).ends_with("the smallest possible total is 6"));
    let error = ilp(&problem, 2, None).unwrap_err().to_string();
    assert_eq!(error, "no plan fits in 2: the smallest possible total is 3");
}

#[test]
fn a_front_is_what_no_other_point_dominates() {
    let mut r = Random(6);
    for _ in 0..100 {
        let points: Vec<(u64, f64)> = (0..r.below(30)).map(|_| (r.below(10), r.below(10) as f64)).collect();
        let mut front = Front::new();
        for (n, &(size, quality)) in points.iter().enumerate() {
            front.insert(size, quality, n);
        }
        let beats = |a: (u64, f64), b: (u64, f64)| a.0 <= b.0 && a.1 >= b.1 && a != b;
        let mut kept: Vec<usize> = (0..points.len())
            .filter(|&n| !points.iter().any(|&p| beats(p, points[n])) && !points[..n].contains(&points[n]))
            .collect();
        kept.sort_by_key(|&n| points[n].0);
        assert_eq!(front.points().iter().map(|p| p.payload).collect::<Vec<_>>(), kept);
        for limit in 0..10 {
            let best = points.iter().filter(|p| p.0 <= limit).map(|p| p.1).max_by(f64::total_cmp);
            assert_eq!(front.best_within(limit).map(|p| p.quality), best);
            let smallest = points.iter().filter(|p| p.1 >= limit as f64).map(|p| p.0).min();
            assert_eq!(front.smallest_reaching(limit as f64).map(|p| p.size), smallest);
        }
    }
    assert!(!Front::new().insert(1, f64::NAN, ()));
}

#[test]
fn a_front_is_read_and_written() {
    let mut front = Front::new();
    assert!(front.insert(20, 0.5, "b".to_owned()) && front.insert(10, 0.25, "a".to_owned()));
    let text = serde_json::to_string(&front).unwrap();
    let expected = r#"[{"size":10,"quality":0.25,"payload":"a"},{"size":20,"quality":0.5,"payload":"b"}]"#;
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<Front<String>>(&text).unwrap(), front);
    // A list that is no front is made one.
    let shuffled = r#"[{"size":20,"quality":0.5,"payload":"b"},{"size":30,"quality":0.5,"payload":"c"}]"#;
    assert_eq!(serde_json::from_str::<Front<String>>(shuffled).unwrap().points().len(), 1);
}

#[test]
fn swaps_are_all_single_rungs_that_fit() {
    let layers = vec![
        layer(&[(4.0, 2), (1.0, 4), (0.0, 6)]),
        layer(&[(9.0, 2), (3.0, 4), (3.5, 5)]),
        layer(&[(2.0, 10), (0.5, 20)]),
    ];
    let problem = Problem::new(layers, 1).unwrap();
    let step = |layer, choice| Step { layer, choice };
    let swap = |up, down, gain, budget| Swap { up, down, gain, budget };
    // 1 + 4 + 2 + 20 = 27 of 28: no upgrade fits alone.
    let pairs = [
        swap(step(1, 1), Some(step(2, 0)), 6.0 - 1.5, 19),
        swap(step(1, 1), Some(step(0, 0)), 6.0 - 3.0, 27),
        swap(step(0, 2), Some(step(2, 0)), 1.0 - 1.5, 19),
    ];
    assert_eq!(swaps(&problem, &[1, 0, 1], 28), pairs);
    // One more, and both fit alone: the slack is spent, nothing is paid for. The dominated choice is no rung.
    let singles = [swap(step(1, 1), None, 6.0, 29), swap(step(0, 2), None, 1.0, 29)];
    assert_eq!(swaps(&problem, &[1, 0, 1], 29), singles);
    assert_eq!(pairs[0].apply(&[1, 0, 1]), [1, 1, 0]);
    assert_eq!(singles[1].apply(&[1, 0, 1]), [2, 0, 1]);
    assert_eq!(swaps(&problem, &[2, 1, 1], 99), []);
}

#[test]
fn swaps_gain_nothing_on_an_optimal_plan_and_what_they_say_elsewhere() {
    let mut r = Random(7);
    let mut gained = 0;
    for case in 0..100 {
        let problem = network(&mut r, 8);
        let (low, high) = (problem.smallest(), greedy(&problem)[0].budget);
        let limit = low + r.below(high - low + 1);
        let best = dynamic_programming(&problem, limit, DEFAULT_STATES).unwrap();
        assert!(swaps(&problem, &best.plan, limit).iter().all(|s| s.gain <= 1e-9 * best.damage), "case {case}");
        let plan: Plan = best.plan.iter().map(|&j| j.saturating_sub(1)).collect();
        for swap in swaps(&problem, &plan, limit) {
            let changed = swap.apply(&plan);
            assert_eq!(problem.budget(&changed), swap.budget);
            assert!(swap.budget <= limit, "case {case}");
            let gain = problem.damage(&plan) - problem.damage(&changed);
            assert!((gain - swap.gain).abs() <= 1e-12 * problem.damage(&plan), "case {case}");
            gained += usize::from(swap.gain > 0.0);
        }
    }
    assert!(gained > 0);
}
