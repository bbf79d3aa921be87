-- Seconds between heartbeats that an operator has set for the devices of an identifier.
ALTER TABLE identifiers ADD COLUMN heartbeat INTEGER;
