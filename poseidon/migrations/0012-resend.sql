-- Behind this row events are sent to the SIEM again after a start: its kernel has them, and its program may not have read them.
ALTER TABLE event_state ADD COLUMN resend_after INTEGER NOT NULL DEFAULT 0;
UPDATE event_state SET resend_after = sent_through;
