# openapi-generator's `ruby` with Faraday.

require 'base64'
require 'digest'
require 'json'
require 'net/http'
require 'securerandom'
require 'valet_client'

def check(holds, found)
  raise found.inspect unless holds
end

# Sends the bytes with the method and the headers of the ticket, and no others.
def put(request, content)
  url = URI(request.url)
  asked = Net::HTTPGenericRequest.new(request.method, true, true, url, request.headers)
  asked.body = content
  Net::HTTP.start(url.host, url.port, use_ssl: url.scheme == 'https') { |http| http.request(asked) }.code.to_i
end

# A picture that was never uploaded before: bytes after an image's end are accepted.
def new_picture
  content = File.binread(ENV.fetch('VALET_PICTURE')) + SecureRandom.bytes(16)
  digest = Base64.strict_encode64(Digest::SHA256.digest(content))
  [content, { file_name: 'beach.png', content_type: ValetClient::ImageType::PNG, size: content.bytesize, sha256: digest }]
end

# Returns the problem of a refused call.
def problem
  yield
  raise 'nothing was refused'
rescue ValetClient::ApiError => e
  JSON.parse(e.response_body).merge('answered' => e.code)
end

def client(token = nil)
  settings = ValetClient::Configuration.new
  url = URI(ENV.fetch('VALET_URL'))
  settings.scheme = url.scheme
  settings.host = "#{url.host}:#{url.port}"
  settings.access_token = token
  ValetClient::ApiClient.new(settings)
end

anonymous = ValetClient::AccountsApi.new(client)

# Accounts.
credentials = ValetClient::SignInCredentials.new(email: "#{SecureRandom.uuid}@example.com", password: "four words #{SecureRandom.uuid}")
anonymous.sign_up(credentials)
session = anonymous.log_in(credentials)
check(session.user.email == credentials.email, session)
refreshed = anonymous.refresh_session(ValetClient::RefreshToken.new(refresh_token: session.refresh_token))
check(refreshed.refresh_token != session.refresh_token, 'refresh')
signed_in = client(refreshed.token)
accounts = ValetClient::AccountsApi.new(signed_in)
uploads = ValetClient::UploadsApi.new(signed_in)
gallery = ValetClient::GalleryApi.new(signed_in)
batches = ValetClient::BatchesApi.new(signed_in)

# From a file to an image.
content = nil
newest_first = []
2.times do
  content, declared = new_picture
  ticket = uploads.create_upload(ValetClient::NewUpload.new(declared.merge(caption: 'The sea')), idempotency_key: SecureRandom.uuid)
  check(ticket.state == 'pending', ticket)
  check([put(ticket.upload, content), put(ticket.upload, content)] == [200, 412], ticket)
  newest_first.unshift(uploads.confirm_upload(ticket.id).id)
end

# The gallery, by pages.
seen = []
options = { limit: 1 }
loop do
  page = gallery.list_images(options)
  seen += page.images.map(&:id)
  break unless page.next_cursor

  options[:cursor] = page.next_cursor
end
check(seen == newest_first, seen)

# Many at once.
pictures = [new_picture, new_picture]
items = pictures.map { |_, declared| ValetClient::BatchUpload.new(declared) }
opened = batches.create_uploads(ValetClient::UploadBatch.new(items: items)).results
check(opened.map(&:status) == [201, 201], opened)
check(opened.zip(pictures).map { |result, (bytes, _)| put(result.ticket.upload, bytes) } == [200, 200], opened)
ids = ValetClient::ImageIds.new(ids: opened.map { |result| result.ticket.id })
check(batches.confirm_uploads(ids).results.map { |result| result.image.id } == ids.ids, ids)
check(batches.delete_images(ids).results.map(&:status) == [204, 204], ids)

# One image.
newest = newest_first.first
check(Net::HTTP.get(URI(gallery.get_image(newest).url)) == content, 'the bytes')
check(gallery.update_image(newest, ValetClient::ImageUpdate.new(caption: 'The harbour')).caption == 'The harbour', 'caption')
check(accounts.get_me.usage.images == 2, 'usage')
gallery.delete_image(newest)

# Problems.
missing = problem { gallery.get_image(newest) }
check(missing.values_at('answered', 'code') == [404, 'not_found'], missing)
wrong = problem { anonymous.log_in(ValetClient::SignInCredentials.new(email: credentials.email, password: 'not the password')) }
check(wrong.values_at('answered', 'code') == [401, 'invalid_credentials'], wrong)
large = problem { uploads.create_upload(ValetClient::NewUpload.new(new_picture[1].merge(size: 2**50))) }
check(large['code'] == 'file_too_large' && large['errors'][0]['field'] == 'size', large)
# Without a token the generated client sends `Authorization: Bearer` with nothing behind it.
nobody = problem { ValetClient::AccountsApi.new(client).get_me }
check(nobody['code'] == 'token_missing', nobody)

anonymous.log_out(ValetClient::RefreshToken.new(refresh_token: refreshed.refresh_token))
ended = problem { accounts.get_me }
check(ended.values_at('answered', 'code') == [401, 'session_ended'], ended)
