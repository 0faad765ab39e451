//! Tenants take turns.

use std::sync::Arc;

use cluegate_perception::{PerceptionErrorKind, RelevanceEncoder, VisionLanguageModel};
use cluegate_workers::{AdmissionOptions, LanguageOptions, LanguageWorker, RelevanceWorker, WorkerOptions};

use crate::support::{
    Event, ScriptedEncoder, ScriptedLanguage, kind, options, request, spawn, tenant, until,
};

#[test]
fn a_busy_tenant_delays_a_single_request_by_one_batch() {
    let model = Arc::new(ScriptedEncoder::default());
    let worker = Arc::new(RelevanceWorker::start(model.clone(), options(256, 4)).unwrap());
    model.gate.close();
    let ask = |name: &'static str, text: String| {
        let worker = worker.clone();
        spawn(move || worker.embed_texts(&[&text], &tenant(name)).unwrap())
    };
    let mut callers = vec![ask("busy", "first".to_owned())];
    model.gate.wait_for(1);
    callers.extend((0..100).map(|number| ask("busy", format!("busy {number}"))));
    until(|| worker.statistics().queued == 100);
    callers.push(ask("single", "single".to_owned()));
    until(|| worker.statistics().queued == 101);
    // The model works on the busy tenant's next batch when another one comes.
    model.gate.let_pass(1);
    model.gate.wait_for(2);
    callers.push(ask("late", "late".to_owned()));
    until(|| worker.statistics().queued == 101 - 4 + 1);
    model.gate.open();
    callers.into_iter().for_each(|caller| {
        caller.join().unwrap();
    });
    let calls = model.calls.lock().unwrap();
    assert!(calls[1].contains(&"single".to_owned()), "{:?}", calls[1]);
    assert!(calls[2].contains(&"late".to_owned()), "{:?}", calls[2]);
    assert_eq!(calls.iter().map(Vec::len).sum::<usize>(), 103);
    assert!(calls.iter().all(|call| call.len() <= 4));
}

#[test]
fn within_a_tenant_the_first_to_come_is_the_first_served() {
    let model = Arc::new(ScriptedEncoder::default());
    let worker = Arc::new(RelevanceWorker::start(model.clone(), options(256, 2)).unwrap());
    model.gate.close();
    let mut callers = Vec::new();
    for (queued, text) in ["a0", "a1", "a2", "b1", "a3", "b2", "c1"].into_iter().enumerate() {
        let own = worker.clone();
        callers.push(spawn(move || own.embed_texts(&[text], &tenant(&text[..1])).unwrap()));
        model.gate.wait_for(1);
        until(|| worker.statistics().queued == queued);
    }
    model.gate.open();
    callers.into_iter().for_each(|caller| {
        caller.join().unwrap();
    });
    let calls = model.calls.lock().unwrap();
    assert_eq!(*calls, [vec!["a0"], vec!["b1", "c1"], vec!["a1", "b2"], vec!["a2", "a3"]]);
}

#[test]
fn answers_of_a_busy_tenant_leave_a_seat_for_another() {
    let model = Arc::new(ScriptedLanguage::default());
    let answers = options(256, 2);
    let worker = Arc::new(
        LanguageWorker::start(model.clone(), LanguageOptions { answers, ..Default::default() }).unwrap(),
    );
    model.steps.close();
    let ask = |name: &'static str, texts: Vec<String>| {
        let worker = worker.clone();
        spawn(move || {
            let requests: Vec<_> = texts.iter().map(|text| request(text, 2)).collect();
            worker.complete(&requests, &tenant(name)).unwrap()
        })
    };
    let mut callers = vec![ask("busy", (0..20).map(|number| format!("busy {number}")).collect())];
    model.steps.wait_for(1);
    callers.push(ask("single", vec!["single".to_owned()]));
    until(|| worker.statistics().answers.queued == 1);
    model.steps.open();
    callers.into_iter().for_each(|caller| {
        caller.join().unwrap();
    });
    let joined: Vec<String> = model
        .log_so_far()
        .into_iter()
        .filter_map(|event| if let Event::Join(joined, _) = event { Some(joined) } else { None })
        .flatten()
        .collect();
    assert_eq!(joined[..4], ["busy 0", "busy 1", "single", "busy 2"]);
    assert_eq!(joined.len(), 21);
}

#[test]
fn a_tenant_that_fills_its_part_of_the_queue_leaves_places_for_others() {
    let model = Arc::new(ScriptedEncoder::default());
    let queue = AdmissionOptions { limit: 4, per_tenant: 3 };
    let worker = Arc::new(
        RelevanceWorker::start(model.clone(), WorkerOptions { queue, ..Default::default() }).unwrap(),
    );
    model.gate.close();
    let ask = |name: &'static str| {
        let worker = worker.clone();
        spawn(move || worker.embed_texts(&["text"], &tenant(name)))
    };
    let mut callers = vec![ask("busy")];
    model.gate.wait_for(1);
    callers.extend((0..3).map(|_| ask("busy")));
    until(|| worker.statistics().queued == 3);
    let refused = worker.embed_texts(&["text"], &tenant("busy"));
    assert_eq!(kind(&refused), Some(PerceptionErrorKind::Overloaded));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "this tenant has 3 of 4 places in the queue of the relevance encoder, and the 1 free ones are kept for other \
         tenants; ask again when earlier requests have ended"
    );
    callers.push(ask("single"));
    until(|| worker.statistics().queued == 4);
    let refused = worker.embed_texts(&["text"], &tenant("third")).unwrap_err();
    assert_eq!(refused.kind(), PerceptionErrorKind::Overloaded);
    assert!(refused.to_string().starts_with("all 4 places in the queue of the relevance encoder are taken"));
    assert_eq!(worker.statistics().rejected, 2);
    model.gate.open();
    assert!(callers.into_iter().all(|caller| caller.join().unwrap().is_ok()));
    assert!(worker.embed_texts(&["text"], &tenant("third")).is_ok());
}
