-- What two runs of version 0007 left in a ledger, but for its cache and the runs' own rows.

INSERT INTO collection_space (collection, entity, space, pinned_at) VALUES
  ('works', 'works', 'hash/words-1/64/cosine', '2026-06-01T09:36:01.987432+00:00');

INSERT INTO watermark (entity, collection, tenant_id, cursor_value, cursor_id, settings, updated_at) VALUES
  ('works', 'works', 'global', '2026-01-01T00:00:05+00:00', '5', 'bc9e57240deab3e6', '2026-06-01T09:36:04.994495+00:00'),
  ('works', 'works', 'acme', '2026-01-01T00:00:03+00:00', '3', 'bc9e57240deab3e6', '2026-06-01T09:36:05.168612+00:00'),
  ('works', 'works', 'brick', '2026-01-01T00:00:04+00:00', '4', 'bc9e57240deab3e6', '2026-06-01T09:36:05.278230+00:00');

INSERT INTO source_state (entity, collection, tenant_id, fingerprint, settings, at) VALUES
  ('works', 'works', 'global', '1/1767225605000000/', 'bc9e57240deab3e6', '2026-06-01T09:36:04.654714+00:00'),
  ('works', 'works', 'acme', '3/1767225603000000/', 'bc9e57240deab3e6', '2026-06-01T09:36:05.060451+00:00'),
  ('works', 'works', 'brick', '1/1767225604000000/', 'bc9e57240deab3e6', '2026-06-01T09:36:05.204933+00:00');

INSERT INTO partition_seen (entity, collection, tenant_id, seen_at) VALUES
  ('works', 'works', 'global', '2026-06-01T09:36:02.883035+00:00'),
  ('works', 'works', 'acme', '2026-06-01T09:36:03.440439+00:00'),
  ('works', 'works', 'brick', '2026-06-01T09:36:03.763601+00:00');

INSERT INTO index_state (collection, document_id, entity, scope, tenant_id, db_id, point_id, space, status, content_hash, payload_hash, attempt_hash, vector_version, error_code, last_error, retry_count, next_attempt_at, last_seen_at, last_synced_at, last_attempt_at, created_at, updated_at, field_hashes, modified_fields, record_hash) VALUES
  ('works', 'global-work-5', 'works', 'global', 'global', '5', '1b6ca5e4-c34c-5f4e-ba08-8bfc57b6c598', 'hash/words-1/64/cosine', 'synced', 'efb3ff66d773275a', '3815dcb506a2c8f1', NULL, 1, NULL, NULL, 0, NULL, '2026-06-01T09:36:04.654714+00:00', '2026-06-01T09:36:03.183522+00:00', '2026-06-01T09:36:03.183522+00:00', '2026-06-01T09:36:03.183522+00:00', '2026-06-01T09:36:03.183522+00:00', '9dc1cee3136419393740298925cbfc4fcd3d1e1b', NULL, 'ae118fceebe46a03'),
  ('works', 'tenant-work-3', 'works', 'tenant', 'acme', '3', '2b1e32f3-e1e0-5ec0-922b-15bcf9a1aac6', 'hash/words-1/64/cosine', 'failed', NULL, NULL, '', 0, 'VALIDATION_ERROR', 'name is required and is empty', 0, NULL, '2026-06-01T09:36:05.060451+00:00', NULL, '2026-06-01T09:36:05.131540+00:00', '2026-06-01T09:36:03.530202+00:00', '2026-06-01T09:36:05.131540+00:00', NULL, NULL, NULL),
  ('works', 'tenant-work-1', 'works', 'tenant', 'acme', '1', 'f9b5685a-5b3f-509f-a629-f7ac1713b510', 'hash/words-1/64/cosine', 'synced', '60e59f11366c6d9a', 'bf8a598152402147', NULL, 1, NULL, NULL, 0, NULL, '2026-06-01T09:36:05.060451+00:00', '2026-06-01T09:36:03.620109+00:00', '2026-06-01T09:36:03.620109+00:00', '2026-06-01T09:36:03.620109+00:00', '2026-06-01T09:36:03.620109+00:00', '9dc1cee37708dc3d374029897d2327c4394d4941', NULL, '713237c2bf618503'),
  ('works', 'tenant-work-2', 'works', 'tenant', 'acme', '2', '77d62cf4-6671-5f26-9995-3c16c85f7c83', 'hash/words-1/64/cosine', 'synced', '3b9c6664c633ed76', '36927f54859d61c3', NULL, 1, NULL, NULL, 0, NULL, '2026-06-01T09:36:05.060451+00:00', '2026-06-01T09:36:03.620109+00:00', '2026-06-01T09:36:03.620109+00:00', '2026-06-01T09:36:03.620109+00:00', '2026-06-01T09:36:03.620109+00:00', '9dc1cee35c258ffe3740298925cbfc4f6abf4a82', NULL, '314855d7c16992c4'),
  ('works', 'tenant-work-4', 'works', 'tenant', 'brick', '4', '2e914b2e-333e-5a2e-bdd6-35097fe9b9ab', 'hash/words-1/64/cosine', 'synced', '0531161cd9d8eefe', '1e75704b054ee039', NULL, 1, NULL, NULL, 0, NULL, '2026-06-01T09:36:05.204933+00:00', '2026-06-01T09:36:03.847629+00:00', '2026-06-01T09:36:03.847629+00:00', '2026-06-01T09:36:03.847629+00:00', '2026-06-01T09:36:03.847629+00:00', '9dc1cee30a7f287837402989a2e613ab25cbfc4f', NULL, 'ee204e56261c78f9');
