package dev.externalip.hotrod;

import java.net.ConnectException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnknownHostException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;

import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelOutboundHandlerAdapter;
import io.netty.channel.ChannelPromise;

/** Sends a channel's connection to the external address; everything else passes it by. */
final class MappedConnect extends ChannelOutboundHandlerAdapter {
    private final AddressMap map;

    MappedConnect(AddressMap map) {
        this.map = map;
    }

    @Override
    public void connect(ChannelHandlerContext ctx, SocketAddress remote, SocketAddress local, ChannelPromise promise) {
        InetSocketAddress external;
        try {
            external = map.external((InetSocketAddress) remote);
        } catch (ConnectException e) {
            promise.tryFailure(e);
            ctx.close();
            return;
        }
        if (!external.isUnresolved()) {
            ctx.connect(external, local, promise);
            return;
        }
        // a lookup blocks, so it is nothing for the thread that serves connections
        CompletableFuture.supplyAsync(() -> resolved(external)).whenCompleteAsync((address, failure) -> {
            if (failure == null) {
                ctx.connect(address, local, promise);
            } else {
                promise.tryFailure(failure.getCause());
                ctx.close();
            }
        }, ctx.executor());
    }

    private static InetSocketAddress resolved(InetSocketAddress named) {
        try {
            return new InetSocketAddress(InetAddress.getByName(named.getHostString()), named.getPort());
        } catch (UnknownHostException e) {
            throw new CompletionException(e);
        }
    }
}
