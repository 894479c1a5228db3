//! A plan as people read it.

use std::fmt;

use super::Plan;

/// A short table, one line for each reason, without a line's end after the last.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing to change");
        }
        let widest = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or(0);
        let action = widest(&mut self.steps.iter().map(|step| step.action.word().len()));
        let name = widest(&mut self.steps.iter().map(|step| step.name.len()));
        let mut lines = Vec::new();
        for step in &self.steps {
            let head = format!("{:action$}  {:8}  {:name$}  ", step.action, step.subject, step.name);
            let below = " ".repeat(head.len());
            for (i, why) in step.why.iter().enumerate() {
                lines.push(format!("{}{why}", if i == 0 { &head } else { &below }));
            }
        }
        if !self.drift.is_empty() {
            lines.push("changed by hand since it was declared, and overwritten by this:".into());
        }
        for drift in &self.drift {
            for what in &drift.what {
                lines.push(format!("  {} {}: {what}", drift.subject, drift.name));
            }
        }
        f.write_str(&lines.join("\n"))
    }
}
