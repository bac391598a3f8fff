-- +goose Up

-- The body of a direct stands in its one delivery, as nonce and ciphertext in
-- wrap, and goes with it: settling one is a single update. message.nonce and
-- message.body are those of group messages alone, while deliveries are queued.
UPDATE delivery SET wrap = (SELECT CAST(nonce || body AS BLOB) FROM message WHERE seq = delivery.message)
WHERE state = 0 AND (SELECT mode IN (1, 4) AND body IS NOT NULL FROM message WHERE seq = delivery.message);
UPDATE message SET nonce = NULL, body = NULL WHERE mode IN (1, 4) AND body IS NOT NULL;

-- +goose Down
UPDATE message SET (nonce, body) = (SELECT CAST(substr(wrap, 1, 24) AS BLOB), CAST(substr(wrap, 25) AS BLOB)
    FROM delivery WHERE delivery.id = message.seq)
WHERE mode IN (1, 4) AND EXISTS (SELECT 1 FROM delivery WHERE delivery.id = message.seq AND state = 0);
UPDATE delivery SET wrap = NULL WHERE (SELECT mode IN (1, 4) FROM message WHERE seq = delivery.message);
