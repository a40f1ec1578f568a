BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE audit (
	seq INTEGER NOT NULL, 
	at_ms BIGINT NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	correlation_id VARCHAR(128) NOT NULL, 
	action VARCHAR(64) NOT NULL, 
	details TEXT NOT NULL, 
	outcome VARCHAR(64) NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "audit" VALUES(1,1700000000400,'localhost','corr-1','model.deleted','{"model": "sim"}','done');
INSERT INTO "audit" VALUES(2,1700000000401,'token:9f86d0','corr-2','app.deleted','{"name": "x"}','APP_NOT_FOUND');
CREATE TABLE cluster (
	id INTEGER NOT NULL, 
	cluster_id VARCHAR(128) NOT NULL, 
	control_epoch BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "cluster" VALUES(1,'cluster-06h3mmumqkj20hbivmcrbld6a0',1);
CREATE TABLE journal (
	seq INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	record_key TEXT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "journal" VALUES(1,'decisions','decision-1','{"decision_id":"decision-1","model":"coder","outcome":"chosen","at_ms":1700000000004,"task_id":"task-1","candidates":[{"node_id":"garage","device_ids":["GPU-1","GPU-2"],"where":"garage/RTX 3090","worker_id":"worker-7","claims_mib":[9000,4500],"tensor_split":[2.0,1.0],"evicted":[{"worker_id":"worker-3","model":"writer","idle_s":61.5,"mib":6000}],"terms":[{"name":"load","ms":4200.5,"is_guess":true}],"filtered_by":"pinned","filter_detail":"rule ''coder only on attic''"}],"removed":{"pinned":2},"considered":3,"pinned":true,"fallback_used":true,"why":"node garage","asked":{"app":"aider","priority":"batch","came_at_ms":1700000000001,"prompt_tokens":300,"output_tokens":40}}');
CREATE TABLE record_format (
	number INTEGER NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "record_format" VALUES(7);
CREATE TABLE records (
	kind VARCHAR(32) NOT NULL, 
	record_key TEXT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (kind, record_key)
);
INSERT INTO "records" VALUES('apps','aider','{"name":"aider","key_hash":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","models":{"gpt-4o":"coder"},"priority":"batch","weight":2.5,"max_concurrent_tasks":3,"max_tokens_per_minute":60000,"origin":"FILE","created_at_ms":1700000000001}');
INSERT INTO "records" VALUES('assignments','coder.pin','{"assignment_id":"coder.pin","model":"coder","app":"aider","targets":["garage/3090+3060","attic"],"mode":"PIN","places":[{"node_id":"garage","device_ids":["GPU-1","GPU-2"],"pool_id":"fast"},null],"keep_loaded":true,"replicas_min":1,"replicas_max":2,"fallback":true,"origin":"FILE","created_at_ms":1700000000002}');
INSERT INTO "records" VALUES('calibrations','file:/models/coder.gguf|8192|4|q8_0|(''cuda RTX 3090'', ''cuda RTX 3060'')|(0.67, 0.33)|llama_cpp|reading, and what comes later','{"source":"file:/models/coder.gguf","context":8192,"slots":4,"cache_type":"q8_0","devices":["cuda RTX 3090","cuda RTX 3060"],"shares":[0.67,0.33],"mib":[9100,4600],"engine":"llama_cpp","counts":"reading, and what comes later"}');
INSERT INTO "records" VALUES('drains','garage:fast','{"pool_id":"garage:fast","node_id":"garage","device_ids":["GPU-1"],"policy":"WAIT","after":"RELOAD","deadline_ms":1700000900001,"ran":[{"model":"coder","device_ids":["GPU-1"]}],"is_drained":true}');
INSERT INTO "records" VALUES('models','coder','{"name":"coder","state":"RETIRED","spec":{"name":"coder","source":"file:/models/coder.gguf","aliases":["code","qwen"],"context":8192,"slots":2,"cache_type":"q8_0","split":"layer","split_shares":[2.0,1.0],"idle_unload_s":900.5,"vram_claim_mib":11264,"engine":"sim"},"provenance":"RegisterModel call","at_ms":1700000000003}');
INSERT INTO "records" VALUES('nodes','garage','{"node_id":"garage","host_id":"host-1","address":"10.0.0.7:9200","version":"0.2","labels":{"zone":"attic"},"devices":[{"device_id":"GPU-1","kind":"CUDA","index":1,"name":"RTX 3090","total_mib":24576,"reserve_mib":512,"compute_capability":"8.6","engines":["llama_cpp"]}],"pools":[{"pool_id":"garage:fast","device_ids":["GPU-1"]}],"offered":{"notes":"dir:notes.gguf"},"former":"cellar"}');
INSERT INTO "records" VALUES('rates','decode coder 4 RTX 3090','{"quantity":"decode","model":"coder","where":"RTX 3090","size":4,"estimate":{"mean":21.5,"spread":3.25,"count":12}}');
INSERT INTO "records" VALUES('released_devices','garage/GPU-2','{"node_id":"garage","device_id":"GPU-2","until_ms":1700000900000}');
INSERT INTO "records" VALUES('sessions','aider session-1','{"app":"aider","session_id":"session-1","model":"coder","budget":{"turns":10,"tokens":20000,"busy_ms":30000},"turns":1,"tokens":2000,"busy_ms":3000,"worker_id":"worker-7","warm_tokens":1900}');
INSERT INTO "records" VALUES('sources','file:/models/coder.gguf','{"source":"file:/models/coder.gguf","size_mib":7000,"facts":{"architecture":"qwen2","context_trained":131072,"layers":[{"heads":28,"kv_heads":4,"key_width":512,"value_width":512,"windowed":true,"state_bytes":64,"weight_bytes":90000000}],"window":4096,"vocabulary_size":152064,"activation_width":3584,"weight_bytes":7000000000,"embedding_bytes":300000000,"output_bytes":400000000,"tied_output":true,"pooling":"last","bidirectional":true},"digest":"e3b0c44298fc1c149afbf4c8996fb924"}');
CREATE TABLE tasks (
	seq INTEGER NOT NULL, 
	task_id VARCHAR(128) NOT NULL, 
	request TEXT NOT NULL, 
	accepted_at_ms BIGINT NOT NULL, 
	state VARCHAR(16), 
	terminal TEXT, 
	output BLOB, 
	ended_at_ms BIGINT, 
	promise TEXT, 
	log_epoch BIGINT, 
	payload BLOB, 
	PRIMARY KEY (seq), 
	UNIQUE (task_id)
);
INSERT INTO "tasks" VALUES(1,'task-1','{"task_id":"task-1","model":"coder","payload":"","content_digest":"digest","seed":7,"priority":"batch","app":"aider","session_id":"session-1","request_id":"request-1","correlation_id":"corr-1","deadline_s":2.5,"durable":true,"prompt_tokens":12,"max_tokens":99,"choices":2,"session_budget":{"turns":10,"tokens":20000,"busy_ms":30000},"wishes":{"pin":["garage"],"prefer":["attic"],"avoid":["cellar"],"device_mask":["GPU-1"],"fallback":true},"overrides":{"pin":[{"node_id":"garage","device_ids":["GPU-1"],"pool_id":"fast"}],"prefer":[{"node_id":"attic","device_ids":[],"pool_id":""}],"avoid":[{"node_id":"cellar","device_ids":[],"pool_id":""}],"device_mask":["GPU-1"],"fallback":true,"above_rules":true},"work":"embed","deterministic":true,"fills_limit":true}',1700000000100,NULL,NULL,NULL,NULL,'{"fingerprint":{"digest":"9f86d0","words":["RTX 3090","llama_cpp 0.3.36"]},"cards":["cuda RTX 3090","cuda RTX 3060"],"context":8192}',NULL,X'00612070726F6D7074FF');
INSERT INTO "tasks" VALUES(2,'task-2','{"task_id":"task-2","model":"coder","payload":"","content_digest":"digest","seed":1,"priority":"interactive","app":"","session_id":"","request_id":"","correlation_id":"","deadline_s":null,"durable":true,"prompt_tokens":0,"max_tokens":null,"choices":1,"session_budget":null,"wishes":null,"overrides":{"pin":[],"prefer":[],"avoid":[],"device_mask":[],"fallback":null,"above_rules":false},"work":"generate","deterministic":false,"fills_limit":false}',1700000000200,'COMPLETED','{"kind":"answer","result":{"choices":[{"choice":1,"finish_reason":"STOP_STRING","tokens_out":3,"stop_string":"END"}],"tokens_in":12,"tokens_out":3,"cached_tokens":4,"decode_ms":60,"receipt":"GgF4","prefill_ms":20},"queue_ms":4,"first_token_ms":9}',X'12091A01052204736F6D65',1700000000300,NULL,1,NULL);
INSERT INTO "tasks" VALUES(3,'task-3','{"task_id":"task-3","model":"coder","payload":"","content_digest":"digest","seed":1,"priority":"interactive","app":"","session_id":"","request_id":"","correlation_id":"","deadline_s":null,"durable":true,"prompt_tokens":0,"max_tokens":null,"choices":1,"session_budget":null,"wishes":null,"overrides":{"pin":[],"prefer":[],"avoid":[],"device_mask":[],"fallback":null,"above_rules":false},"work":"generate","deterministic":false,"fills_limit":false}',1700000000201,'FAILED','{"kind":"error","reason":"WORKER_LOST","message":"it’s gone","retry_after_ms":7,"field":"generate.prompt"}',X'',1700000000301,NULL,1,NULL);
INSERT INTO "tasks" VALUES(4,'task-4','{"task_id":"task-4","model":"coder","payload":"","content_digest":"digest","seed":1,"priority":"interactive","app":"","session_id":"","request_id":"","correlation_id":"","deadline_s":null,"durable":true,"prompt_tokens":0,"max_tokens":null,"choices":1,"session_budget":null,"wishes":null,"overrides":{"pin":[],"prefer":[],"avoid":[],"device_mask":[],"fallback":null,"above_rules":false},"work":"generate","deterministic":false,"fills_limit":false}',1700000000202,'CANCELLED','{"kind":"stopped","finish_reason":"CANCELLED","queue_ms":1,"first_token_ms":2,"tokens_in":9,"cached_tokens":4,"decode_ms":30}',X'12091A01052204736F6D65',1700000000302,NULL,7,NULL);
CREATE INDEX journal_by_kind ON journal (kind, seq);
COMMIT;
