//! The words of a notice: what a sender reads first.
//!
//! Says per recipient what happened, at which host, what it answered and which rule decided. Plain
//! lines of at most 76 columns where words allow; foreign texts are indented, never first on a line.

use super::{Action, Notice, NoticeFacts, Told};
use crate::mail::Failure;
use crate::mail::header::{date, sanitize};

/// Columns of a line.
const COLUMNS: usize = 76;
/// Recipients told of one by one; the status part has them all.
const RECIPIENTS_TOLD_MAX: usize = 100;

/// The first part of the notice; `remark` says what of the message is returned.
pub(super) fn render(facts: &NoticeFacts<'_>, told: &[Told<'_>], remark: &str) -> String {
    let mut text = Text::default();
    text.paragraph(0, &format!("This is the mail system at {}.", facts.hostname));
    for action in [Action::Failed, Action::Delayed, Action::Relayed] {
        let of_kind: Vec<_> = told.iter().filter(|(_, notice)| notice.action() == action).collect();
        if of_kind.is_empty() {
            continue;
        }
        text.blank();
        text.paragraph(0, introduction(action));
        for (recipient, notice) in of_kind.iter().take(RECIPIENTS_TOLD_MAX) {
            text.blank();
            text.paragraph(2, &format!("<{}>", recipient.path));
            recipient_lines(&mut text, notice);
        }
        if let Some(more @ 1..) = of_kind.len().checked_sub(RECIPIENTS_TOLD_MAX) {
            text.blank();
            text.paragraph(2, &format!("and {more} more; the delivery status part lists them all."));
        }
    }
    text.blank();
    text.paragraph(
        0,
        &format!(
            "The message was accepted on {} and is known here as {}.",
            date(facts.received_at),
            facts.queue_id
        ),
    );
    text.paragraph(0, remark);
    text.out
}

fn introduction(action: Action) -> &'static str {
    match action {
        Action::Failed => {
            "Your message could not be delivered to the following recipients. It will not be tried again."
        }
        Action::Delayed => {
            "Your message has not been delivered to the following recipients yet. It is still being \
             tried: this is only a warning, you need not send it again."
        }
        Action::Relayed => {
            "Your message was handed on for the following recipients, to a mail system that sends no \
             confirmation of final delivery. You may hear of a failure, but not of success."
        }
    }
}

fn recipient_lines(text: &mut Text, notice: &Notice) {
    match notice {
        Notice::Relayed(reply) => text.paragraph(4, &format!("Answer: {reply}")),
        Notice::Failed(failure) | Notice::Delayed { failure, .. } => {
            // In the class of the notice, as its status field says it.
            let failure = Failure { status: notice.status(), ..failure.clone() };
            text.paragraph(4, &failure.sentence());
            if let Some(host) = &failure.host {
                text.paragraph(4, &format!("Host: {host}"));
            }
            if let Some(reply) = &failure.reply {
                text.paragraph(4, &format!("Its answer: {reply}"));
            }
            if let Some(rule) = &failure.rule {
                text.paragraph(4, &format!("Rule that forbade delivery: {rule}"));
            }
        }
    }
    text.paragraph(4, &format!("Status: {}", notice.status()));
    match notice {
        Notice::Failed(failure) => text.paragraph(4, &format!("What to do: {}", failure.advice())),
        // While it is tried there is nothing to do, but where a rule holds it back somebody may.
        Notice::Delayed { failure, .. } if failure.rule.is_some() => {
            text.paragraph(4, &format!("What to do: {}", failure.advice()));
        }
        Notice::Delayed { .. } | Notice::Relayed(_) => {}
    }
    if let Notice::Delayed { will_retry_until, .. } = notice {
        text.paragraph(4, &format!("Tried until: {}", date(*will_retry_until)));
    }
}

#[derive(Default)]
struct Text {
    out: String,
}

impl Text {
    fn blank(&mut self) {
        self.out.push_str("\r\n");
    }

    /// Words of `text`, wrapped, each line indented; whatever control characters it has are blanks.
    fn paragraph(&mut self, indent: usize, text: &str) {
        let mut column = 0;
        for word in sanitize(text).split_ascii_whitespace() {
            let width = word.chars().count();
            if column > 0 && column + 1 + width > COLUMNS {
                self.blank();
                column = 0;
            }
            if column == 0 {
                self.out.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else {
                self.out.push(' ');
                column += 1;
            }
            self.out.push_str(word);
            column += width;
        }
        self.blank();
    }
}
