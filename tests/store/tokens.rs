//! Tokens with scopes: their rows, and lists that show only what a token reaches.

use cc_executor::{
    access::Reach,
    job::{JobSpec, Micros},
    store::{ListFilter, NewToken, Store, Submission, TokenAdded, TokenChange},
};

use crate::ledger::*;

fn new(name: &str, nonce: u8) -> NewToken {
    NewToken {
        name: name.to_owned(),
        nonce: [nonce; 16],
        digest: [nonce; 32],
        scopes: vec!["read".to_owned()],
        restrictions: vec!["\"own\"".to_owned()],
        expires_at: Some(Micros(100)),
        created_by: "test".to_owned(),
        at: Micros(1),
    }
}

#[tokio::test]
async fn a_name_is_unique_until_its_token_is_revoked_and_no_number_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.add_token(new("a", 1)).await, Ok(TokenAdded::Done(1)));
    assert_eq!(
        store.add_token(new("a", 2)).await,
        Ok(TokenAdded::NameTaken)
    );
    let rotated = TokenChange::Rotated {
        nonce: [3; 16],
        digest: [3; 32],
        expires_at: None,
        at: Micros(5),
    };
    assert_eq!(
        store
            .change_token(1, TokenChange::Expired(Micros(100)))
            .await,
        Ok(true)
    );
    assert!(store.tokens().await.unwrap()[0].expired);
    assert_eq!(store.change_token(1, rotated.clone()).await, Ok(true));
    // What was seen of the old one does not count for the new one.
    assert_eq!(
        store
            .change_token(1, TokenChange::Expired(Micros(200)))
            .await,
        Ok(false)
    );
    let token = store.tokens().await.unwrap().remove(0);
    assert_eq!(
        (token.nonce, token.expired, token.rotated_at),
        ([3; 16], false, Some(Micros(5)))
    );
    assert_eq!(
        store.change_token(1, TokenChange::Revoked(Micros(9))).await,
        Ok(true)
    );
    for change in [TokenChange::Revoked(Micros(10)), rotated] {
        assert_eq!(store.change_token(1, change).await, Ok(false));
    }
    assert_eq!(store.add_token(new("a", 4)).await, Ok(TokenAdded::Done(2)));
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    let stored = store.tokens().await.unwrap();
    let revoked: Vec<_> = stored.iter().map(|token| token.revoked_at).collect();
    assert_eq!(revoked, [Some(Micros(9)), None]);
    assert_eq!(stored[1].restrictions, ["\"own\""]);
}

/// Whether the job with this number is reached.
type IsReached = fn(i64) -> bool;

#[tokio::test]
async fn a_list_shows_what_is_reached_and_pages_over_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("ledger.db"))
        .await
        .unwrap();
    for at in 0..30_u8 {
        let job = JobSpec {
            queue: if at % 3 == 0 {
                "interactive"
            } else {
                "default"
            }
            .to_owned(),
            labels: [("k".to_owned(), (at % 5).to_string())].into(),
            ..true_job()
        };
        let submission = Submission {
            token: (at % 2 == 0).then_some(7),
            ..submission(job)
        };
        store.submit(submission).await.unwrap();
    }
    let label = |value: &str| ("k".to_owned(), value.to_owned());
    let all: Vec<i64> = (1..=30).rev().collect();
    let cases: [(Reach, IsReached); 5] = [
        (Reach::default(), |_| true),
        (
            Reach {
                own: Some(7),
                ..Reach::default()
            },
            |n| (n - 1) % 2 == 0,
        ),
        (
            Reach {
                queues: Some(["interactive".to_owned()].into()),
                ..Reach::default()
            },
            |n| (n - 1) % 3 == 0,
        ),
        (
            Reach {
                labels: [label("1")].into(),
                own: Some(7),
                ..Reach::default()
            },
            |n| (n - 1) % 10 == 6,
        ),
        (
            Reach {
                labels: [label("1"), label("2")].into(),
                ..Reach::default()
            },
            |_| false,
        ),
    ];
    for (reach, is_reached) in cases {
        let expected: Vec<i64> = all.iter().copied().filter(|n| is_reached(*n)).collect();
        let (mut found, mut below) = (Vec::new(), None);
        loop {
            let filter = ListFilter {
                limit: 4,
                below,
                reach: reach.clone(),
                ..ListFilter::default()
            };
            let page = store.list(filter).await.unwrap();
            found.extend(page.jobs.iter().map(|job| job.number));
            below = page.next;
            if below.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{reach:?}");
        for number in &all {
            let place = store.job_place((*number).into()).await.unwrap().unwrap();
            assert_eq!(
                reach.check(&place).is_ok(),
                is_reached(*number),
                "{number} {reach:?}"
            );
        }
    }
    assert_eq!(store.job_place(99_i64.into()).await, Ok(None));
}
