use super::*;

fn at(second: i64) -> Timestamp {
    // At the begin of an hour, a quarter and a minute.
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn delivered(total: u64) -> Totals {
    Totals { delivered: total, protection: [total, 0, 0, 0, 0, 0], ..Totals::default() }
}

fn of(history: &History, range: Range, now: i64) -> u64 {
    sum(&history.columns(range, at(now))).delivered()
}

#[test]
fn differences_are_added_once_and_in_their_minute() {
    let mut history = History::default();
    for (second, total) in [(0, 5), (10, 5), (59, 6), (60, 10), (200, 10)] {
        assert!(!history.observe(delivered(total), at(second)));
    }
    let columns = history.columns(Range::Hour, at(200));
    let last: Vec<Option<u64>> =
        columns.iter().rev().take(5).map(|column| column.counts.map(|c| c.delivered())).collect();
    // Nobody looked in the third minute, nor before the first.
    assert_eq!(last, [Some(0), None, Some(4), Some(6), None]);
    assert_eq!(columns[59].from, at(180));
    assert_eq!((columns.len(), of(&history, Range::Day, 200), of(&history, Range::Month, 200)), (60, 10, 10));
    assert_eq!(sum(&columns).protection(), [10, 0, 0, 0, 0, 0]);
}

#[test]
fn a_counter_that_begins_anew_is_taken_as_it_is() {
    let mut history = History::default();
    for total in [5, 9, 2, 3] {
        history.observe(delivered(total), at(0));
    }
    assert_eq!(of(&history, Range::Hour, 0), 9 + 3);
}

#[test]
fn what_is_old_leaves_the_plots_and_memory() {
    let mut history = History::default();
    for minute in 0..4000 {
        history.observe(delivered(minute as u64 + 1), at(minute * 60));
    }
    let now = 3999 * 60;
    assert_eq!(history.minutes.entries.len(), MINUTES_MAX);
    assert_eq!(of(&history, Range::Hour, now), 60);
    // Whole columns: the one that runs has had ten minutes.
    assert_eq!(of(&history, Range::Day, now), 95 * 15 + 10);
    assert_eq!(of(&history, Range::Month, now), 4000);
}

#[test]
fn a_clock_that_steps_loses_as_little_as_it_can() {
    struct Row {
        what: &'static str,
        /// Second and total.
        looks: &'static [(i64, u64)],
        dropped: bool,
        now: i64,
        hour: u64,
    }
    for row in [
        Row { what: "a small step back", looks: &[(600, 3), (530, 5)], dropped: false, now: 600, hour: 5 },
        Row { what: "a large one", looks: &[(0, 3), (90_000, 7), (60, 8)], dropped: true, now: 60, hour: 4 },
        Row {
            what: "ahead for a while",
            looks: &[(0, 3), (900_000_000, 4), (60, 5)],
            dropped: true,
            now: 60,
            hour: 4,
        },
        Row { what: "ahead for good", looks: &[(0, 3), (90_000, 7)], dropped: false, now: 90_000, hour: 4 },
    ] {
        let mut history = History::default();
        let dropped = row.looks.iter().fold(false, |dropped, (second, total)| {
            dropped | history.observe(delivered(*total), at(*second))
        });
        assert_eq!((dropped, of(&history, Range::Hour, row.now)), (row.dropped, row.hour), "{}", row.what);
    }
}

#[test]
fn it_reads_back_what_it_wrote_and_nothing_else() {
    let mut history = History::default();
    for minute in 0..2000 {
        history.observe(delivered(minute as u64), at(minute * 60));
    }
    let bytes = history.render();
    let read = History::parse(&bytes).unwrap();
    assert_eq!(
        (&read.minutes, &read.hours, read.last),
        (&history.minutes, &history.hours, Counts::default())
    );
    let empty = History::default();
    assert_eq!(History::parse(&empty.render()), Ok(empty));

    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let newer = String::from_utf8(bytes.clone()).unwrap().replacen("history 1", "history 2", 1);
    let body = b"{\"minutes\":[[5,[0,0,0,0,0,0,0,0,0,0]],[5,[0,0,0,0,0,0,0,0,0,0]]],\"hours\":[]}";
    let mut unordered = format!("stsrelay-history 1 {:08x}\n", crc32fast::hash(body)).into_bytes();
    unordered.extend_from_slice(body);
    for (bad, word) in [
        (&b""[..], "damaged"),
        (b"stsrelay-history 1 00000000", "damaged"),
        (b"something else\n{}", "damaged"),
        (&bytes[..bytes.len() - 1], "damaged"),
        (&flipped[..], "damaged"),
        (&unordered[..], "damaged"),
        (newer.as_bytes(), "format 2"),
    ] {
        assert!(History::parse(bad).unwrap_err().contains(word), "{word}");
    }
}
