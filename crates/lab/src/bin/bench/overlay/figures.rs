//! A figure of several rounds.

/// One figure's values, round by round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn median(&self) -> f64 {
        median(self.0.clone())
    }

    /// How far the best and the worst round lie apart, in percent of the median.
    pub(crate) fn spread(&self) -> f64 {
        let highest = self.0.iter().copied().fold(f64::MIN, f64::max);
        let lowest = self.0.iter().copied().fold(f64::MAX, f64::min);
        (highest - lowest) / self.median() * 100.0
    }

    /// The median of the ratios to another's values in the same round: what the machine did meanwhile met both.
    pub(crate) fn ratio_to(&self, other: &Self) -> f64 {
        median(
            self.0
                .iter()
                .zip(&other.0)
                .map(|(one, other)| one / other)
                .collect(),
        )
    }
}

/// The middle one, or the mean of the two in the middle; not a number without any.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_spreads_and_ratios() {
        let slow = Rounds(vec![10.0, 30.0, 20.0]);
        let fast = Rounds(vec![20.0, 60.0, 10.0]);
        assert_eq!((slow.median(), slow.spread()), (20.0, 100.0));
        assert_eq!(
            fast.ratio_to(&slow),
            2.0,
            "2, 2 and a half: round by round, not of the medians"
        );
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }
}
