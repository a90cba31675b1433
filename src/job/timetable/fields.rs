//! Refuses expressions that fire at other times than their author meant: names in a field that has none, steps
//! that are longer than their field. `croner` takes them.
//!
//! Only what a user sets is checked: a schedule that is stored goes on as it is.

/// A field of an expression.
struct CronField {
    name: &'static str,
    min: u32,
    max: u32,
    /// The longest step after which there is a second value.
    step_max: u32,
    /// Words that stand for numbers.
    names: &'static [&'static str],
    /// Letters with a meaning of their own.
    letters: &'static [&'static str],
}

static FIELDS: [CronField; 6] = [
    CronField::of_numbers("second", 0, 59, 59),
    CronField::of_numbers("minute", 0, 59, 59),
    CronField::of_numbers("hour", 0, 23, 23),
    CronField {
        letters: &["L", "W", "LW"],
        ..CronField::of_numbers("day of the month", 1, 31, 30)
    },
    CronField {
        names: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
        ..CronField::of_numbers("month", 1, 12, 11)
    },
    CronField {
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        letters: &["L"],
        ..CronField::of_numbers("weekday", 0, 7, 6)
    },
];

/// Checks an expression; `Err` says what is wrong with it.
pub(super) fn check(cron: &str) -> Result<(), String> {
    if cron.contains(|c: char| c.is_control() && c != '\t') {
        return Err("must have no control characters but tabs".to_owned());
    }
    let parts: Vec<&str> = cron.split_whitespace().collect();
    let fields = match parts.as_slice() {
        [] => return Err("is empty".to_owned()),
        // A nickname; there is a list of them.
        [one] if one.starts_with('@') => return Ok(()),
        [_, _, _, _, _] => &FIELDS[1..],
        [_, _, _, _, _, _] => &FIELDS[..],
        _ => return Err(format!("must have 5 or 6 fields, not {}", parts.len())),
    };
    let mut checked = fields.iter().zip(&parts);
    checked.try_for_each(|(field, part)| field.check(&part.to_ascii_uppercase()))
}

impl CronField {
    const fn of_numbers(name: &'static str, min: u32, max: u32, step_max: u32) -> Self {
        Self {
            name,
            min,
            max,
            step_max,
            names: &[],
            letters: &[],
        }
    }

    fn check(&self, part: &str) -> Result<(), String> {
        for item in part.split(',') {
            let (range, step) = item.split_once('/').unwrap_or((item, ""));
            self.check_step(step)?;
            let values = range.split('#').next().unwrap_or(range);
            let is_letter = |c: char| c.is_ascii_alphabetic();
            for word in range.split(|c| !is_letter(c)).filter(|w| !w.is_empty()) {
                self.check_word(word)?;
            }
            let is_digit = |c: char| c.is_ascii_digit();
            for number in values.split(|c| !is_digit(c)).filter(|n| !n.is_empty()) {
                self.check_number(number)?;
            }
        }
        Ok(())
    }

    fn check_step(&self, step: &str) -> Result<(), String> {
        let (name, max) = (self.name, self.step_max);
        match step.parse::<u64>() {
            Ok(step) if step > u64::from(max) => Err(format!(
                "a step of {step} is too long for the {name}, which would have its first value alone; a step is \
                 at most {max} there"
            )),
            _ => Ok(()),
        }
    }

    fn check_word(&self, word: &str) -> Result<(), String> {
        // The last one of its weekday in a month.
        let name = word.strip_suffix('L').unwrap_or(word);
        if self.letters.contains(&word) || [word, name].iter().any(|w| self.names.contains(w)) {
            return Ok(());
        }
        let name = self.name;
        Err(match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => {
                format!("the {name} has the names {first} to {last}, and no {word:?}")
            }
            _ => format!("the {name} has no names, such as {word:?}"),
        })
    }

    fn check_number(&self, number: &str) -> Result<(), String> {
        let (name, min, max) = (self.name, self.min, self.max);
        match number.parse::<u32>() {
            Ok(value) if (min..=max).contains(&value) => Ok(()),
            _ => Err(format!("the {name} is from {min} to {max}, not {number}")),
        }
    }
}
