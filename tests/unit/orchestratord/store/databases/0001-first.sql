BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
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
INSERT INTO "audit" VALUES(1,1700000000400,'localhost','corr-1','ModelDeleted','{"model": "sim"}','done');
CREATE TABLE cluster (
	id INTEGER NOT NULL, 
	cluster_id VARCHAR(128) NOT NULL, 
	control_epoch BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "cluster" VALUES(1,'cluster-06h2edo78brnvc65nc56039pk0',1);
CREATE TABLE journal (
	seq INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	record_key VARCHAR(512) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (seq)
);
CREATE TABLE records (
	kind VARCHAR(32) NOT NULL, 
	record_key VARCHAR(512) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (kind, record_key)
);
INSERT INTO "records" VALUES('models','coder','{"name":"coder","state":"RETIRED","spec":{"name":"coder","source":"file:/models/coder.gguf","aliases":["code","qwen"],"context":8192,"slots":2,"cache_type":"q8_0","split":"layer","split_shares":[2.0,1.0],"idle_unload_s":900.5,"vram_claim_mib":11264},"provenance":"RegisterModel call","at_ms":1700000000003}');
INSERT INTO "records" VALUES('sources','file:/models/coder.gguf','{"source":"file:/models/coder.gguf","size_mib":7000,"facts":{"context_trained":131072,"weights_mib":6900,"kv_bytes_per_token":57344,"window_kv_bytes_per_token":1024,"window_tokens":4096,"state_kib_per_slot":64,"compute_mib":500},"digest":"e3b0c44298fc1c149afbf4c8996fb924"}');
CREATE TABLE tasks (
	seq INTEGER NOT NULL, 
	task_id VARCHAR(128) NOT NULL, 
	request TEXT NOT NULL, 
	accepted_at_ms BIGINT NOT NULL, 
	state VARCHAR(16), 
	terminal TEXT, 
	output BLOB, 
	ended_at_ms BIGINT, 
	PRIMARY KEY (seq), 
	UNIQUE (task_id)
);
INSERT INTO "tasks" VALUES(1,'task-1','{"task_id":"task-1","model":"coder","payload":"AGEgcHJvbXB0/w==","content_digest":"digest","seed":7,"priority":"batch","app":"aider","session_id":"session-1","request_id":"request-1","correlation_id":"corr-1","deadline_s":2.5,"durable":true}',1700000000100,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(2,'task-2','{"task_id":"task-2","model":"coder","payload":"","content_digest":"digest","seed":1,"priority":"interactive","app":"","session_id":"","request_id":"","correlation_id":"","deadline_s":null,"durable":true}',1700000000200,'COMPLETED','{"class":"TaskEnd","result":{"choices":[{"choice":1,"finish_reason":"STOP_STRING","tokens_out":3,"stop_string":"END"}],"tokens_in":12,"tokens_out":3,"cached_tokens":4,"decode_ms":60,"receipt":"GgF4"},"queue_ms":4,"first_token_ms":9}',X'12091A01052204736F6D65',1700000000300);
INSERT INTO "tasks" VALUES(3,'task-3','{"task_id":"task-3","model":"coder","payload":"","content_digest":"digest","seed":1,"priority":"interactive","app":"","session_id":"","request_id":"","correlation_id":"","deadline_s":null,"durable":true}',1700000000201,'FAILED','{"class":"TaskError","reason":"WORKER_LOST","message":"it’s gone","retryable":true,"retry_after_ms":7}',X'',1700000000301);
INSERT INTO "tasks" VALUES(4,'task-4','{"task_id":"task-4","model":"coder","payload":"","content_digest":"digest","seed":1,"priority":"interactive","app":"","session_id":"","request_id":"","correlation_id":"","deadline_s":null,"durable":true}',1700000000202,'CANCELLED','{"class":"Stopped","finish_reason":"CANCELLED","queue_ms":1,"first_token_ms":2}',X'12091A01052204736F6D65',1700000000302);
CREATE INDEX journal_by_kind ON journal (kind, seq);
COMMIT;
