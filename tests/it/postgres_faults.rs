//! A database that answers, and yet does not do what it should.
//!
//! Owns: the proof that an operator's mistake costs a worker no result, and a clock set back costs nobody a lease. Never: fakes a store.
//! Invariant: what was refused is taken once the fault is mended, without a restart.

use crate::app::{App, Place, numbers, quick, success};
use crate::cluster::{connect, fresh_database};
use serde_json::json;
use std::time::Duration;
use tallykeeper::coordinator::Settings;

#[actix_web::test]
async fn a_store_that_cannot_commit_one_job_rejects_none_of_its_results_and_holds_no_other_up() {
    let url = fresh_database().await;
    let settings = Settings {
        store_wait: Duration::from_millis(300),
        ..quick()
    };
    let app = App::start(&Place::Postgres(url.clone()), settings).await;
    let (bad, good) = (app.job(3, json!({})).await, app.job(3, json!({})).await);
    let (held, fine) = (app.lease(bad, "w", 3).await, app.lease(good, "w", 3).await);
    let db = connect(&url).await;
    db.batch_execute(&format!(
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the audit log is full'; END $$;
         CREATE TRIGGER audit BEFORE INSERT ON outcomes FOR EACH ROW WHEN (NEW.job = {bad}) EXECUTE FUNCTION audit();"
    ))
    .await
    .unwrap();
    let path = format!("/v1/jobs/{bad}/results");
    let body = json!({"worker": "w", "results": held.iter().map(success).collect::<Vec<_>>()});
    for _ in 0..2 {
        let (status, said) = app.post(&path, body.clone()).await;
        assert_eq!((status, &said["code"]), (503, &json!("store_unavailable")), "{said}");
    }
    // A small wait for the store: as on a busy disk, the post is repeated until it is answered.
    let items = json!({"worker": "w", "results": fine.iter().map(success).collect::<Vec<_>>()});
    while app.post(&format!("/v1/jobs/{good}/results"), items.clone()).await.0 == 503 {}
    assert_eq!(
        app.until(good, |view| view["state"] == "succeeded").await["progress"]["succeeded"],
        3
    );

    db.batch_execute("DROP TRIGGER audit ON outcomes").await.unwrap();
    let view = app.until(bad, |view| view["state"] == "succeeded").await;
    assert_eq!(view["progress"]["succeeded"], 3, "{view}");
    assert_eq!(app.results(bad).await.len(), 3);
    app.stop().await;
}

#[actix_web::test]
async fn a_snapshot_is_saved_by_a_clock_that_is_behind_the_one_before_it() {
    let url = fresh_database().await;
    let place = Place::Postgres(url.clone());
    let app = App::start(&place, quick()).await;
    let job = app.job(4, json!({})).await;
    let first = app.lease(job, "w", 1).await;
    app.stop().await;
    // As if the node that saved it had had a clock an hour ahead.
    let db = connect(&url).await;
    let moved = db
        .execute("UPDATE snapshots SET version = version + 3600000", &[])
        .await;
    assert_eq!(moved.unwrap(), 1);

    let app = App::start(&place, quick()).await;
    let second = app.lease(job, "w", 2).await;
    app.stop().await;
    let app = App::start(&place, quick()).await;
    let rest = app.lease(job, "x", 4).await;
    let mut all = numbers(&first);
    all.extend(numbers(&second));
    all.extend(numbers(&rest));
    assert_eq!(
        all,
        [0, 1, 2, 3],
        "a leased task was handed out twice, or one was forgotten"
    );
    app.stop().await;
}
