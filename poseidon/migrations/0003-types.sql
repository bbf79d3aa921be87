-- What a job asks for: the type of its message.
ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'command';
