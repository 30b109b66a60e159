<?php
// openapi-generator's `php`: calls with Guzzle, which Debian packages with its own autoloader.

declare(strict_types=1);

use GuzzleHttp\Client;
use Valet\ApiException;
use Valet\Api\AccountsApi;
use Valet\Api\BatchesApi;
use Valet\Api\GalleryApi;
use Valet\Api\UploadsApi;
use Valet\Configuration;
use Valet\Model\BatchUpload;
use Valet\Model\SignInCredentials;
use Valet\Model\ImageIds;
use Valet\Model\ImageType;
use Valet\Model\ImageUpdate;
use Valet\Model\NewUpload;
use Valet\Model\PresignedRequest;
use Valet\Model\RefreshToken;
use Valet\Model\UploadBatch;

require 'GuzzleHttp/autoload.php';
spl_autoload_register(function (string $class): void {
    if (str_starts_with($class, 'Valet\\')) {
        require getenv('SDK') . '/lib/' . str_replace('\\', '/', substr($class, 6)) . '.php';
    }
});

function check(bool $holds, mixed $found): void
{
    if (!$holds) {
        throw new LogicException(print_r($found, true));
    }
}

/** Sends the bytes with the method and the headers of the ticket, and no others. */
function put(PresignedRequest $request, string $content): int
{
    $options = ['headers' => $request->getHeaders(), 'body' => $content, 'http_errors' => false];
    return (new Client())->request($request->getMethod(), $request->getUrl(), $options)->getStatusCode();
}

/** A picture that was never uploaded before: bytes after an image's end are accepted. */
function newPicture(): array
{
    $content = file_get_contents(getenv('VALET_PICTURE')) . random_bytes(16);
    $digest = base64_encode(hash('sha256', $content, true));
    return [$content, ['file_name' => 'beach.png', 'content_type' => ImageType::PNG, 'size' => strlen($content), 'sha256' => $digest]];
}

/** Returns the status and code of a refused call. */
function refusal(callable $call): array
{
    try {
        $call();
    } catch (ApiException $refused) {
        return [$refused->getCode(), $refused->getResponseObject()->getCode(), $refused->getResponseObject()];
    }
    throw new LogicException('nothing was refused');
}

$settings = new Configuration();
$settings->setHost(getenv('VALET_URL'));
$anonymous = new AccountsApi(config: $settings);

// Accounts.
$credentials = new SignInCredentials(['email' => bin2hex(random_bytes(8)) . '@example.com', 'password' => 'four words ' . bin2hex(random_bytes(8))]);
$anonymous->signUp($credentials);
$session = $anonymous->logIn($credentials);
check($session->getUser()->getEmail() === $credentials->getEmail(), $session);
$refreshed = $anonymous->refreshSession(new RefreshToken(['refresh_token' => $session->getRefreshToken()]));
check($refreshed->getRefreshToken() !== $session->getRefreshToken(), $refreshed);
$signedIn = clone $settings;
$signedIn->setAccessToken($refreshed->getToken());
$accounts = new AccountsApi(config: $signedIn);
$uploads = new UploadsApi(config: $signedIn);
$gallery = new GalleryApi(config: $signedIn);
$batches = new BatchesApi(config: $signedIn);

// From a file to an image.
$newestFirst = [];
for ($n = 0; $n < 2; $n++) {
    [$content, $declared] = newPicture();
    $ticket = $uploads->createUpload(new NewUpload($declared + ['caption' => 'The sea']), bin2hex(random_bytes(8)));
    check($ticket->getState() === 'pending', $ticket);
    check([put($ticket->getUpload(), $content), put($ticket->getUpload(), $content)] === [200, 412], $ticket);
    array_unshift($newestFirst, $uploads->confirmUpload($ticket->getId())->getId());
}

// The gallery, by pages.
[$seen, $cursor] = [[], null];
do {
    $page = $gallery->listImages(1, $cursor);
    foreach ($page->getImages() as $image) {
        $seen[] = $image->getId();
    }
    $cursor = $page->getNextCursor();
} while ($cursor !== null);
check($seen === $newestFirst, $seen);

// Many at once.
$pictures = [newPicture(), newPicture()];
$items = array_map(fn (array $picture) => new BatchUpload($picture[1]), $pictures);
$ids = [];
foreach ($batches->createUploads(new UploadBatch(['items' => $items]))->getResults() as $n => $result) {
    check($result->getStatus() === 201 && put($result->getTicket()->getUpload(), $pictures[$n][0]) === 200, $result);
    $ids[] = $result->getTicket()->getId();
}
$both = new ImageIds(['ids' => $ids]);
foreach ($batches->confirmUploads($both)->getResults() as $n => $result) {
    check($result->getImage()->getId() === $ids[$n], $result);
}
foreach ($batches->deleteImages($both)->getResults() as $result) {
    check($result->getStatus() === 204, $result);
}

// One image.
$newest = $newestFirst[0];
check(file_get_contents($gallery->getImage($newest)->getUrl()) === $content, 'the bytes');
check($gallery->updateImage($newest, new ImageUpdate(['caption' => 'The harbour']))->getCaption() === 'The harbour', 'caption');
check($accounts->getMe()->getUsage()->getImages() === 2, 'usage');
$gallery->deleteImage($newest);

// Problems.
check(array_slice(refusal(fn () => $gallery->getImage($newest)), 0, 2) === [404, 'not_found'], 'not found');
$wrong = new SignInCredentials(['email' => $credentials->getEmail(), 'password' => 'not the password']);
check(array_slice(refusal(fn () => $anonymous->logIn($wrong)), 0, 2) === [401, 'invalid_credentials'], 'password');
$large = new NewUpload(['size' => 2 ** 50] + newPicture()[1]);
[$status, $code, $problem] = refusal(fn () => $uploads->createUpload($large));
check([$status, $code, $problem->getErrors()[0]->getField()] === [422, 'file_too_large', 'size'], $problem);

$anonymous->logOut(new RefreshToken(['refresh_token' => $refreshed->getRefreshToken()]));
check(array_slice(refusal(fn () => $accounts->getMe()), 0, 2) === [401, 'session_ended'], 'session');
